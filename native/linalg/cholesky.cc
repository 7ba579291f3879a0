// Right-looking: factor a diagonal block, solve the rows below it, subtract their outer product from the rest.
#include "linalg/cholesky.h"

#include <algorithm>
#include <cmath>

#include "ops/operand.h"
#include "ops/triangular.h"

namespace lutra {

namespace {

constexpr int64_t kBlock = 96;

// The unblocked factorisation of one diagonal block. Returns the row of a bad pivot, or -1.
int64_t factor_block(const Matrix64& a) {
  const int64_t n = a.rows;
  double* rows[kBlock];
  for (int64_t i = 0; i < n; ++i) rows[i] = a.row(i);
  double column[kBlock];
  for (int64_t j = 0; j < n; ++j) {
    const double pivot = rows[j][j];
    // False for a NaN too.
    if (!(pivot > 0) || !std::isfinite(pivot)) return j;
    const double root = std::sqrt(pivot);
    rows[j][j] = root;
    for (int64_t i = j + 1; i < n; ++i) rows[i][j] = column[i] = rows[i][j] / root;
    for (int64_t i = j + 1; i < n; ++i)
      for (int64_t l = j + 1; l <= i; ++l) rows[i][l] -= column[i] * column[l];
  }
  return -1;
}

}  // namespace

Status cholesky(Context& context, const TensorView& a) {
  const int64_t n = triangle_rows(a);
  if (a.rank != 1 && a.rank != 2) return error(Code::kShape, "cholesky: the matrix must have 2 dimensions", a.rank, 2);
  if (a.dtype != Dtype::kF64) return error(Code::kDtype, "cholesky: the matrix must be f64");
  if (n < 0) return error(Code::kShape, "cholesky: the matrix must be square", a.cols(), a.rows());
  const Matrix64 lower = lower_triangle(a);
  for (int64_t j = 0; j < n; j += kBlock) {
    const int64_t width = std::min(kBlock, n - j);
    const Matrix64 diagonal = lower.block(j, j, width, width);
    const int64_t bad = factor_block(diagonal);
    if (bad >= 0)
      return error(Code::kNotPositiveDefinite, "cholesky: the pivot of this row is not positive", j + bad, n);
    const int64_t end = j + width, rest = n - end;
    if (rest == 0) break;
    const Matrix64 panel = lower.block(end, j, rest, width);
    LUTRA_TRY(solve_lower_transposed(context, diagonal, panel));
    LUTRA_TRY(subtract_outer_lower(context, panel, lower.block(end, end, rest, rest)));
  }
  if (a.rank == 1) return ok_status();
  return finished(context.parallel(n, [&](int64_t i) { std::fill(lower.row(i) + i + 1, lower.row(i) + n, 0.0); }));
}

}  // namespace lutra
