// Error feedback from row to row of a head, what BoA (arXiv 2406.13474) adds to the column pass. The rows of all heads
// take part side by side: matrices are [d, heads, k] here, row p of every head before row p + 1 of any.
//
// With a head's damped row Hessian G = M M^T, M upper triangular, rows [first, first + n) are rounded as if they were
//     W_B + (M[:first, B] M[B, B]^-1)^T (W - Q)[:first]
// where B are these rows (TurboBoA, arXiv 2602.04929; n = 1 is BoA): the inverse-free form of the update through the
// Cholesky factor of G^-1, exactly as gptq.h has it for columns.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// block f32 [n, heads, k] out. w and errors f32 [d, heads, k], the rows of errors before `first` W - Q; factors f64
// [heads, d, d]. A factor that couples no rows gives the rows of w exactly.
Status compensate_rows(Context& context, const TensorView& w, const TensorView& errors, const TensorView& factors,
                       int64_t first, const TensorView& block);

// y[i, :] = x[index[i], :]; x and y both f32 or both u8 with the same columns, index i32 with a number a row of y.
Status gather_rows(Context& context, const TensorView& x, const TensorView& index, const TensorView& y);

}  // namespace lutra
