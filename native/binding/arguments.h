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
// Throws where the value is no array or has more elements.
uint32_t array_length(const Napi::Value& value, uint32_t at_most, const char* name);
std::vector<double> number_array(const Napi::Value& value, const char* name, size_t at_most);
// Calls body(element) for every element of an array of at most so many. Its length is read once: reading an element may
// run JavaScript that changes it.
template <typename Body>
void each_element(const Napi::Value& value, uint32_t at_most, const char* name, Body&& body) {
  const uint32_t length = array_length(value, at_most, name);
  for (uint32_t i = 0; i < length; ++i) body(value.As<Napi::Array>().Get(i));
}
// Fills rank and shape, and checks that the byte count fits. dtype must be set.
void read_shape(const Napi::Value& value, TensorView* view, const char* where);
// The token of a Cancel object, or null for null.
std::shared_ptr<CancelToken> cancel_token(const Napi::Value& value);

}  // namespace lutra::binding
