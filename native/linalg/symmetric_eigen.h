// Eigenvectors of a small symmetric matrix, fp64.
#pragma once

#include "core/status.h"
#include "ops/context.h"
#include "ops/triangular.h"

namespace lutra {

// s[n,n] is symmetric and positive semidefinite up to rounding, and is destroyed. Row i of vectors[n,n] becomes the
// eigenvector of the i-th largest eigenvalue. One-sided Jacobi: rotations of pairs of rows until all are orthogonal,
// pairs in a tournament's order, whose rounds are parallel; the same bits for every number of lanes.
Status symmetric_eigen(Context& context, const Matrix64& s, const Matrix64& vectors);

}  // namespace lutra
