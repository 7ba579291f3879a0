// Products in fp64, for what must be exact to more digits than fp32 has.
#pragma once

#include "core/status.h"
#include "ops/context.h"
#include "ops/matrix64.h"

namespace lutra {

// c[n,m] = a[n,k] b[m,k]^T: a f32, b and c f64, a and b dense. Every element is one fp64 sum over ascending k, for any
// number of lanes.
Status product64(Context& context, int64_t n, int64_t m, int64_t k, const float* a, const double* b, double* c,
                 int64_t c_stride);

// For every row x of x[n,k] the quadratic form x H x^T, H symmetric [k,k] with its upper triangle in memory, taken
// apart by groups of group_size consecutive columns, the last one ragged:
//     gram[r * row_stride + a * stride + b] = sum over i in group a, j in group b of x_ri H_ij x_rj,    b <= a.
// The same bits for every number of lanes.
Status group_gram(Context& context, int64_t n, const double* x, const Matrix64& hessian, int64_t group_size,
                  double* gram, int64_t row_stride, int64_t stride);

}  // namespace lutra
