// One element of a tensor of any floating-point type, as a double: for passes whose arithmetic is fp64 and whose
// operands are what a checkpoint stores.
#pragma once

#include <cstdint>

#include "core/half.h"
#include "core/tensor_view.h"

namespace lutra {

// `dtype` is f32, f16, bf16 or f64.
static inline double element_of(const void* data, Dtype dtype, int64_t index) {
  switch (dtype) {
    case Dtype::kF64:
      return static_cast<const double*>(data)[index];
    case Dtype::kF16:
      return half_to_float(static_cast<const uint16_t*>(data)[index]);
    case Dtype::kBF16:
      return bfloat16_to_float(static_cast<const uint16_t*>(data)[index]);
    default:
      return static_cast<const float*>(data)[index];
  }
}

// Rounds to f32 first where the type is a 16-bit one, halves to even both times, as `convert` does.
static inline void store_element(void* data, Dtype dtype, int64_t index, double value) {
  switch (dtype) {
    case Dtype::kF64:
      static_cast<double*>(data)[index] = value;
      break;
    case Dtype::kF16:
      static_cast<uint16_t*>(data)[index] = float_to_half(static_cast<float>(value));
      break;
    case Dtype::kBF16:
      static_cast<uint16_t*>(data)[index] = float_to_bfloat16(static_cast<float>(value));
      break;
    default:
      static_cast<float*>(data)[index] = static_cast<float>(value);
  }
}

}  // namespace lutra
