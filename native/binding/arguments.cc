#include "binding/arguments.h"

#include <cmath>
#include <string>

#include "binding/environment.h"
#include "binding/failure.h"
#include "binding/program_object.h"
#include "core/checked.h"

namespace lutra::binding {

void require_tag(const Napi::Value& value, const napi_type_tag& tag, const char* what, const char* where) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&tag))
    throw bad_argument(value.Env(), "LUTRA_E_OPTION", what, where);
}

bool flag(const Napi::Value& value, const char* name) {
  if (!value.IsBoolean()) throw bad_argument(value.Env(), "LUTRA_E_OPTION", "true or false is needed", name);
  return value.As<Napi::Boolean>().Value();
}

int64_t whole_number(const Napi::Value& value, const char* name, int64_t low, int64_t high) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  const bool fits = number >= static_cast<double>(low) && number <= static_cast<double>(high);
  if (!fits || number != std::floor(number)) {
    const Status status = error(Code::kOption, "a whole number in range is needed",
                                std::abs(number) <= 0x1p53 ? static_cast<int64_t>(number) : 0);
    throw failure(value.Env(), status, name);
  }
  return static_cast<int64_t>(number);
}

uint32_t array_length(const Napi::Value& value, uint32_t at_most, const char* name) {
  if (!value.IsArray()) throw bad_argument(value.Env(), "LUTRA_E_OPTION", "an array is needed", name);
  const uint32_t length = value.As<Napi::Array>().Length();
  if (length > at_most) throw bad_argument(value.Env(), "LUTRA_E_OPTION", "too many elements", name);
  return length;
}

std::vector<double> number_array(const Napi::Value& value, const char* name, size_t at_most) {
  const uint32_t length = array_length(value, static_cast<uint32_t>(at_most), name);
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<double> numbers(length);
  for (uint32_t i = 0; i < length; ++i) {
    const Napi::Value element = array.Get(i);
    const double number = element.IsNumber() ? element.As<Napi::Number>().DoubleValue() : NAN;
    // Every parameter is a size, an index or a small real: one bound keeps later conversions defined.
    if (!(std::abs(number) <= 0x1p53)) throw bad_argument(value.Env(), "LUTRA_E_OPTION", "a number out of range", name);
    numbers[i] = number;
  }
  return numbers;
}

void read_shape(const Napi::Value& value, TensorView* view, const char* where) {
  const std::vector<double> shape = number_array(value, where, TensorView::kMaxRank);
  if (shape.empty()) throw bad_argument(value.Env(), "LUTRA_E_SHAPE", "a shape needs a dimension", where);
  int64_t bytes = static_cast<int64_t>(dtype_bytes(view->dtype));
  view->rank = static_cast<int>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    const bool whole = shape[i] >= 0 && shape[i] == std::floor(shape[i]);
    view->shape[i] = whole ? static_cast<int64_t>(shape[i]) : -1;
    if (!whole || !checked_mul(bytes, view->shape[i], &bytes))
      throw bad_argument(value.Env(), "LUTRA_E_SHAPE", "dimensions out of range", where);
  }
}

std::shared_ptr<CancelToken> cancel_token(const Napi::Value& value) {
  if (value.IsNull() || value.IsUndefined()) return nullptr;
  return CancelObject::from(value, "cancel").token();
}

}  // namespace lutra::binding
