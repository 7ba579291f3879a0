// GPTQ's column pass (Frantar et al., arXiv 2210.17323) in its inverse-free form.
//
// With the damped Hessian H = M M^T, M upper triangular, the pass
//     w'_j = w_j + sum_{i<j} (w_i - q_i) * M_ij / M_jj,    q_j = Q(w'_j)
// gives the codes of the textbook form without inverting H.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/rtn.h"

namespace lutra {

// Hessians and factors are f64 [k,k] or packed triangles (ops/matrix64.h).

// M from H: reverse both axes, factor, reverse back. H is overwritten by M (a square's lower triangle is zero).
// kNotPositiveDefinite leaves H destroyed: the caller keeps a copy or rebuilds it with more damping.
Status reverse_cholesky(Context& context, const TensorView& hessian);

// w f32 [m,k] in pass order, m_factor in pass order, levels f32 [m, groups, 2^bits] (see levels.h; made of
// values already rounded to their storage type), group_of i32 [k]: the group of each column in pass order. codes u8
// [m,k] out, pass order; Q takes the nearest level.
// kNonFinite names a row whose feedback overflowed: its codes mean nothing.
// loss f64 [m]: per row, sum_j ((w'_j - q_j) / U_jj)^2 with U = M^-1, equal to (Q - W) H (Q - W)^T.
// wanted f32 [m,k], where it has memory, receives w', what every code was rounded from.
Status gptq_pass(Context& context, const TensorView& w, const TensorView& m_factor, const TensorView& levels,
                 const TensorView& group_of, const TensorView& codes, const TensorView& loss,
                 const TensorView& wanted = {});

// The same with dynamic groups: columns as they are, and the grid of each group fitted as fit_grid fits it, but to the
// compensated weights, what the group's columns have become when the pass enters it: those that are best with all
// columns before them rounded and no other. scales and zeros f32 [m, groups] out. The first group's are fit_grid's.
Status gptq_dynamic_pass(Context& context, const GridOptions& options, const TensorView& w, const TensorView& m_factor,
                         const TensorView& scales, const TensorView& zeros, const TensorView& codes,
                         const TensorView& loss);

// Of k columns, with a positive diagonal.
Status check_factor(const TensorView& m_factor, int64_t k);

}  // namespace lutra
