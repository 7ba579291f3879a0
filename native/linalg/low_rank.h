// The best approximation of a matrix by one of small rank, in the metric of another.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// b f32 [m,r] and a f32 [r,k] such that tr((x - b a) H (x - b a)^T) is the least of all pairs of rank r; x f32 [m,k],
// H f64 [k,k] symmetric and positive semidefinite, or without data for the identity. r is 1 to min(m, k).
//
// With H = C C^T the answer is [x C]_r C^-1, the truncated singular value decomposition in H's norm. Its left factor U
// gives b a = U U^T x, so neither C nor its inverse is needed, and a singular H is as good as any: U spans the leading
// eigenvectors of x H x^T, which randomized subspace iteration finds, with a seed that is fixed. Products are fp32,
// bases and the small eigenproblem fp64. Where `warm` is set the iteration starts from the columns of b.
//
// Column i of b and row i of a have the same root mean square. `captured`, if not null, receives
// tr(x H x^T) - tr((x - b a) H (x - b a)^T). The same bits for every number of lanes.
Status low_rank_fit(Context& context, const TensorView& x, const TensorView& metric, bool warm, const TensorView& b,
                    const TensorView& a, double* captured);

}  // namespace lutra
