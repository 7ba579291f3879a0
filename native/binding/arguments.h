// Reading arguments: every number that becomes a size or an index is checked before it is one.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "core/cancel.h"
#include "core/tensor_view.h"

namespace lutra::binding {

// Throws where the value is no object that this addon made with this tag: what makes it safe to unwrap.
void require_tag(const Napi::Value& value, const napi_type_tag& tag, const char* what, const char* where);
bool flag(const Napi::Value& value, const char* name);
int64_t whole_number(const Napi::Value& value, const char* name, int64_t low, int64_t high);
std::vector<double> number_array(const Napi::Value& value, const char* name, size_t at_most);
// Fills rank and shape, and checks that the byte count fits. dtype must be set.
void read_shape(const Napi::Value& value, TensorView* view, const char* where);
// The token of a Cancel object, or null for null.
std::shared_ptr<CancelToken> cancel_token(const Napi::Value& value);

}  // namespace lutra::binding
