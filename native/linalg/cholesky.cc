// Right-looking: factor a diagonal block, solve the rows below it, subtract their outer product from the rest.
#include "linalg/cholesky.h"

#include <algorithm>
#include <cmath>

#include "ops/triangular.h"

namespace lutra {

namespace {

constexpr int64_t kBlock = 96;

// The unblocked factorisation of one diagonal block. Returns the row of a bad pivot, or -1.
int64_t factor_block(double* a, int64_t n, int64_t stride) {
  double column[kBlock];
  for (int64_t j = 0; j < n; ++j) {
    const double pivot = a[j * stride + j];
    // False for a NaN too.
    if (!(pivot > 0) || !std::isfinite(pivot)) return j;
    const double root = std::sqrt(pivot);
    a[j * stride + j] = root;
    for (int64_t i = j + 1; i < n; ++i) a[i * stride + j] = column[i] = a[i * stride + j] / root;
    for (int64_t i = j + 1; i < n; ++i)
      for (int64_t l = j + 1; l <= i; ++l) a[i * stride + l] -= column[i] * column[l];
  }
  return -1;
}

}  // namespace

Status cholesky(Context& context, const TensorView& a) {
  if (a.rank != 2) return error(Code::kShape, "cholesky: the matrix must have 2 dimensions", a.rank, 2);
  if (a.dtype != Dtype::kF64) return error(Code::kDtype, "cholesky: the matrix must be f64");
  const int64_t n = a.shape[0];
  if (n < 0 || a.shape[1] != n) return error(Code::kShape, "cholesky: the matrix must be square", a.shape[1], n);
  double* data = a.as<double>();
  for (int64_t j = 0; j < n; j += kBlock) {
    const int64_t width = std::min(kBlock, n - j);
    double* diagonal = data + j * n + j;
    const int64_t bad = factor_block(diagonal, width, n);
    if (bad >= 0)
      return error(Code::kNotPositiveDefinite, "cholesky: the pivot of this row is not positive", j + bad, n);
    const int64_t rest = n - j - width;
    if (rest == 0) break;
    const Matrix64 panel{diagonal + width * n, rest, width, n};
    LUTRA_TRY(solve_lower_transposed(context, {diagonal, width, width, n}, panel));
    LUTRA_TRY(subtract_outer_lower(context, panel, {diagonal + width * n + width, rest, rest, n}));
  }
  const bool ran = context.parallel(n, [&](int64_t i) { std::fill(data + i * n + i + 1, data + (i + 1) * n, 0.0); });
  return ran ? ok_status() : error(Code::kCancelled, "cancelled");
}

}  // namespace lutra
