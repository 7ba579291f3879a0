// The checks that every operator makes of its operands. Each says what it found and what it wanted.
#pragma once

#include "core/checked.h"
#include "core/status.h"
#include "core/tensor_view.h"

namespace lutra {

inline Status require_equal(int64_t found, int64_t expected, const char* what) {
  return found == expected ? ok_status() : error(Code::kShape, what, found, expected);
}

inline Status require_dtype(const TensorView& t, Dtype dtype, const char* what) {
  return t.dtype == dtype ? ok_status()
                          : error(Code::kDtype, what, static_cast<int64_t>(t.dtype), static_cast<int64_t>(dtype));
}

constexpr bool is_float(Dtype dtype) { return dtype == Dtype::kF32 || dtype == Dtype::kF16 || dtype == Dtype::kBF16; }

// f32, f16 or bf16.
inline Status require_weight_dtype(const TensorView& t, const char* what) {
  return is_float(t.dtype) ? ok_status() : error(Code::kDtype, what, static_cast<int64_t>(t.dtype));
}

// `rank` dimensions, none negative, a product that fits, and memory where there are elements.
inline Status require_rank(const TensorView& t, int rank, const char* what) {
  if (t.rank != rank) return error(Code::kShape, what, t.rank, rank);
  int64_t elements = 1;
  for (int i = 0; i < rank; ++i)
    if (t.shape[i] < 0 || !checked_mul(elements, t.shape[i], &elements))
      return error(Code::kShape, what, t.shape[i], i);
  int64_t bytes = 0;
  if (!checked_mul(elements, static_cast<int64_t>(dtype_bytes(t.dtype)), &bytes))
    return error(Code::kShape, what, elements, rank);
  return elements > 0 && !t.data ? error(Code::kShape, what, 0, elements) : ok_status();
}

inline Status require_same_shape(const TensorView& a, const TensorView& b, const char* what) {
  if (a.rank != b.rank) return error(Code::kShape, what, b.rank, a.rank);
  for (int i = 0; i < a.rank; ++i)
    if (a.shape[i] != b.shape[i]) return error(Code::kShape, what, b.shape[i], a.shape[i]);
  return ok_status();
}

inline bool overlap(const TensorView& a, const TensorView& b) {
  const uintptr_t a0 = reinterpret_cast<uintptr_t>(a.data);
  const uintptr_t b0 = reinterpret_cast<uintptr_t>(b.data);
  return a.bytes() && b.bytes() && a0 < b0 + b.bytes() && b0 < a0 + a.bytes();
}

// Lanes read one operand while others write the result: where they share memory the result would depend on the lanes.
inline Status require_apart(const TensorView& result, const TensorView& operand, const char* what) {
  return overlap(result, operand) ? error(Code::kOption, what) : ok_status();
}
// For operators that read an element and write it at the same place: the whole operand may be the result.
inline Status require_same_or_apart(const TensorView& result, const TensorView& operand, const char* what) {
  return result.data == operand.data ? ok_status() : require_apart(result, operand, what);
}

// The end of an operator: a region that stopped early was cancelled.
inline Status finished(bool ran) { return ran ? ok_status() : error(Code::kCancelled, "cancelled"); }

inline Status out_of_memory(int64_t bytes) { return error(Code::kOutOfMemory, "no memory for scratch", bytes); }

}  // namespace lutra
