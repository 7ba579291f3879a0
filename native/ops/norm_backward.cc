#include <algorithm>
#include <cmath>

#include "ops/backward.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kPartElements = int64_t{1} << 15;
constexpr int64_t kColumns = 64;  // of dweight, in a part: four lines of every row

int64_t part_rows(int64_t d) { return std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, d)); }

// 1 / sqrt(mean(x^2) + epsilon) of one row.
double inverse_rms(const float* x, float epsilon, int64_t d) {
  double squares = 0;
  for (int64_t i = 0; i < d; ++i) squares += static_cast<double>(x[i]) * x[i];
  return 1.0 / std::sqrt(squares / static_cast<double>(d) + static_cast<double>(epsilon));
}

void backward_row(const float* x, const float* weight, float epsilon, const float* dy, float* dx, int64_t d) {
  const double r = inverse_rms(x, epsilon, d);
  double along = 0;
  for (int64_t i = 0; i < d; ++i) along += static_cast<double>(dy[i]) * weight[i] * x[i];
  along *= r * r / static_cast<double>(d);
  for (int64_t i = 0; i < d; ++i)
    dx[i] = static_cast<float>((static_cast<double>(dy[i]) * weight[i] - x[i] * along) * r);
}

Status check(const TensorView& x, float epsilon, const TensorView& dy) {
  LUTRA_TRY(require_rank(x, 2, "rms_norm_backward: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(dy, 2, "rms_norm_backward: dy must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "rms_norm_backward: x must be f32"));
  LUTRA_TRY(require_dtype(dy, Dtype::kF32, "rms_norm_backward: dy must be f32"));
  LUTRA_TRY(require_same_shape(x, dy, "rms_norm_backward: shape of dy, against shape of x"));
  return epsilon >= 0 ? ok_status() : error(Code::kOption, "rms_norm_backward: epsilon is negative or NaN");
}

Status check_line(const TensorView& line, int64_t d, const char* what) {
  LUTRA_TRY(require_rank(line, 1, what));
  LUTRA_TRY(require_dtype(line, Dtype::kF32, what));
  return require_equal(line.shape[0], d, what);
}

}  // namespace

Status rms_norm_backward_input(Context& context, const TensorView& x, const TensorView& weight, float epsilon,
                               const TensorView& dy, const TensorView& dx) {
  LUTRA_TRY(check(x, epsilon, dy));
  const int64_t n = x.shape[0], d = x.shape[1];
  LUTRA_TRY(check_line(weight, d, "rms_norm_backward: weight must be f32 with an element a column of x"));
  LUTRA_TRY(require_rank(dx, 2, "rms_norm_backward: dx must have 2 dimensions"));
  LUTRA_TRY(require_dtype(dx, Dtype::kF32, "rms_norm_backward: dx must be f32"));
  LUTRA_TRY(require_same_shape(x, dx, "rms_norm_backward: shape of dx, against shape of x"));
  LUTRA_TRY(require_same_or_apart(dx, dy, "rms_norm_backward: dx may be dy, or not overlap it"));
  LUTRA_TRY(require_apart(dx, x, "rms_norm_backward: dx may not overlap x"));
  LUTRA_TRY(require_apart(dx, weight, "rms_norm_backward: dx may not overlap weight"));
  const int64_t rows = part_rows(d);
  return finished(context.parallel(ceil_div(n, rows), [&](int64_t part) {
    for (int64_t t = part * rows; t < std::min(n, (part + 1) * rows); ++t)
      backward_row(x.as<float>() + t * d, weight.as<float>(), epsilon, dy.as<float>() + t * d, dx.as<float>() + t * d,
                   d);
  }));
}

Status rms_norm_backward_weight(Context& context, const TensorView& x, float epsilon, const TensorView& dy,
                                const TensorView& dweight) {
  LUTRA_TRY(check(x, epsilon, dy));
  const int64_t n = x.shape[0], d = x.shape[1];
  LUTRA_TRY(check_line(dweight, d, "rms_norm_backward: dweight must be f32 with an element a column of x"));
  LUTRA_TRY(require_apart(dweight, x, "rms_norm_backward: dweight may not overlap x"));
  LUTRA_TRY(require_apart(dweight, dy, "rms_norm_backward: dweight may not overlap dy"));
  const size_t bytes = static_cast<size_t>(std::max<int64_t>(1, n)) * sizeof(double);
  auto* factors = static_cast<double*>(context.scratch(bytes));
  if (!factors) return out_of_memory(static_cast<int64_t>(bytes));
  const int64_t rows = part_rows(d);
  const bool ran = context.parallel(ceil_div(n, rows), [&](int64_t part) {
    for (int64_t t = part * rows; t < std::min(n, (part + 1) * rows); ++t)
      factors[t] = inverse_rms(x.as<float>() + t * d, epsilon, d);
  });
  if (!ran) return finished(false);
  return finished(context.parallel(ceil_div(d, kColumns), [&](int64_t part) {
    const int64_t column = part * kColumns, columns = std::min(kColumns, d - column);
    double sums[kColumns] = {};
    for (int64_t t = 0; t < n; ++t)
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t at = t * d + column + i;
        sums[i] += static_cast<double>(dy.as<float>()[at]) * x.as<float>()[at] * factors[t];
      }
    for (int64_t i = 0; i < columns; ++i) dweight.as<float>()[column + i] = static_cast<float>(sums[i]);
  }));
}

}  // namespace lutra
