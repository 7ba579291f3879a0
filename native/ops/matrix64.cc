#include "ops/matrix64.h"

#include <cmath>

namespace lutra {

int64_t triangle_rows(const TensorView& x) {
  if (x.rank == 2) return x.shape[0] == x.shape[1] ? x.shape[0] : -1;
  if (x.rank != 1) return -1;
  // Exact below 2^53 elements, and checked in any case.
  const auto n = static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(x.shape[0]) + 1.0) - 1.0) / 2.0 + 0.5);
  return n * (n + 1) / 2 == x.shape[0] ? n : -1;
}

Status require_triangle(const TensorView& x, int64_t n, const char* what) {
  LUTRA_TRY(require_rank(x, x.rank == 1 ? 1 : 2, what));
  LUTRA_TRY(require_dtype(x, Dtype::kF64, what));
  return require_equal(triangle_rows(x), n, what);
}

Matrix64 upper_triangle(const TensorView& x) {
  const int64_t n = triangle_rows(x);
  return x.rank == 1 ? Matrix64{x.as<double>(), n, n, n - 1, -1} : Matrix64{x.as<double>(), n, n, n};
}

Matrix64 lower_triangle(const TensorView& x) {
  const int64_t n = triangle_rows(x);
  return x.rank == 1 ? Matrix64{x.as<double>(), n, n, 1, 1} : Matrix64{x.as<double>(), n, n, n};
}

}  // namespace lutra
