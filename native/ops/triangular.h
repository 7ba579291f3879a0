// The two fp64 updates of a blocked factorisation, on parts of a larger matrix.
#pragma once

#include "core/status.h"
#include "ops/context.h"
#include "ops/matrix64.h"

namespace lutra {

// c[n,n] -= a[n,k] a[n,k]^T on and below the diagonal. Of a whole square, blocks of kGemmBlock that hold a piece of the
// diagonal are written whole. Every element is one fp64 sum over ascending k, for any number of lanes.
Status subtract_outer_lower(Context& context, const Matrix64& a, const Matrix64& c);

// x[n,k] becomes x L^-T, L[k,k] lower triangular with a diagonal that is not zero; k <= kGemmBlock.
Status solve_lower_transposed(Context& context, const Matrix64& l, const Matrix64& x);

}  // namespace lutra
