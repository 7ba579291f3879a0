// The low-rank pair b a beside the codes of a matrix: its numbers as they are stored, and the matrix without it.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// stored f32 [n,k]: x f32 [n,k] as f16, bf16 (halves to even) or i8 with a scale a row hold it; may be x. kOption, with
// their number in `found`, where elements are beyond the type.
Status round_rows(Context& context, Dtype dtype, const TensorView& x, const TensorView& stored);

// The numbers behind what round_rows gives for i8: codes i8 [n,k], halves up, and scales f32 [n], the largest magnitude
// of a row over 127; one for a row of zeros.
Status store_rows_int8(Context& context, const TensorView& x, const TensorView& codes, const TensorView& scales);

// rest f32 [m,k] = w f32 [m,k] - b f32 [m,r] a f32 [r,k], in fp32.
Status subtract_pair(Context& context, const TensorView& w, const TensorView& b, const TensorView& a,
                     const TensorView& rest);

// What passes over a matrix and a pair ask of their shapes: all f32, rank 1 to min(m, k).
Status check_pair(const TensorView& w, const TensorView& b, const TensorView& a);

}  // namespace lutra
