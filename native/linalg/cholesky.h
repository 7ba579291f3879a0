// Dense fp64 factorisation on the project's own kernels. Knows nothing of quantization.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// In place: the lower triangle of a[n,n] (f64, symmetric positive definite) becomes L with a = L L^T; the strict
// upper triangle is set to zero. Or of a lower triangle alone, its rows packed, [n (n + 1) / 2]. kNotPositiveDefinite
// names the failing pivot in `found`; a is then partly overwritten. Blocked and parallel; the same bits for every
// number of lanes.
Status cholesky(Context& context, const TensorView& a);

}  // namespace lutra
