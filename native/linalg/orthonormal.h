// Orthonormal bases in fp64.
#pragma once

#include "core/status.h"
#include "ops/context.h"
#include "ops/triangular.h"

namespace lutra {

// The sum of a[i] * b[i] in fp64, in eight running sums: one order for every caller. T is float or double.
template <typename T>
double dot_product(const T* a, const T* b, int64_t n);

// The rows of x, no more than columns, become orthonormal; row j keeps to the span of rows 0 .. j, and a row that its
// predecessors span to working precision is replaced by a random one: x always ends as a basis of so many directions.
// Gram-Schmidt, every row against its predecessors twice, which is as orthogonal as a Householder factorisation; the
// same bits for every number of lanes.
Status orthonormalize_rows(Context& context, const Matrix64& x);

}  // namespace lutra
