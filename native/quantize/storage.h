// The types that scales, alphas and offsets are stored in: numbers are rounded to them before anything uses them.
#pragma once

#include <cmath>
#include <limits>

#include "core/half.h"
#include "core/tensor_view.h"

namespace lutra {

// The nearest number of f16, bf16 or f32, halves to even; infinite where it is too large.
static inline float stored_value(Dtype dtype, double value) {
  const float wide = static_cast<float>(value);
  if (dtype == Dtype::kF16) return half_to_float(float_to_half(wide));
  return dtype == Dtype::kBF16 ? bfloat16_to_float(float_to_bfloat16(wide)) : wide;
}

// The smallest number of the storage type that is not below `value` > 0; infinite where there is none.
static inline float stored_not_below(Dtype dtype, double value) {
  float wide = static_cast<float>(value);
  if (static_cast<double>(wide) < value) wide = std::nextafterf(wide, std::numeric_limits<float>::infinity());
  if (dtype == Dtype::kF32 || std::isinf(wide)) return wide;
  const auto widen = dtype == Dtype::kF16 ? half_to_float : bfloat16_to_float;
  uint16_t narrow = dtype == Dtype::kF16 ? float_to_half(wide) : float_to_bfloat16(wide);
  // One step up: the bit patterns of positive numbers are ordered, infinity after the largest.
  if (widen(narrow) < wide) ++narrow;
  return widen(narrow);
}

static inline float smallest_normal(Dtype dtype) { return dtype == Dtype::kF16 ? 0x1p-14f : 0x1p-126f; }

}  // namespace lutra
