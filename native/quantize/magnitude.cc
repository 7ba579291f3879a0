#include "quantize/magnitude.h"

#include <cmath>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "quantize/for_rows.h"

namespace lutra {

namespace {

// One number for each row, computed in parallel, then taken together in order by `join`.
template <typename OfRow, typename Join>
Status reduce_rows(Context& context, const TensorView& x, double* result, OfRow&& of_row, Join&& join) {
  if (x.dtype != Dtype::kF32) return error(Code::kDtype, "the matrix must be f32");
  const int64_t m = x.rows(), k = x.cols();
  const AlignedBuffer rows(static_cast<size_t>(m) * sizeof(double));
  if (!rows) return error(Code::kOutOfMemory, "no memory for one number a row", m);
  LUTRA_TRY(for_rows(context, m, [&](int64_t row) { rows.as<double>()[row] = of_row(x.as<float>() + row * k, k); }));
  double value = 0.0;
  for (int64_t row = 0; row < m; ++row) value = join(value, rows.as<double>()[row]);
  *result = value;
  return ok_status();
}

}  // namespace

Status largest_magnitude(Context& context, const TensorView& x, double* largest) {
  const auto of_row = [](const float* values, int64_t n) {
    float most = 0.0f;
    for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(values[i]));
    return static_cast<double>(most);
  };
  return reduce_rows(context, x, largest, of_row, [](double a, double b) { return std::max(a, b); });
}

Status sum_of_squares(Context& context, const TensorView& x, double* sum) {
  const auto of_row = [](const float* values, int64_t n) {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) total += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    return total;
  };
  return reduce_rows(context, x, sum, of_row, [](double a, double b) { return a + b; });
}

Status squared_distance(Context& context, const TensorView& a, const TensorView& b, double* sum) {
  LUTRA_TRY(require_dtype(b, Dtype::kF32, "distance: b must be f32"));
  LUTRA_TRY(require_same_shape(a, b, "distance: shape of b, against shape of a"));
  const auto of_row = [&](const float* values, int64_t n) {
    const float* others = b.as<float>() + (values - a.as<float>());
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      const double difference = static_cast<double>(values[i]) - static_cast<double>(others[i]);
      total += difference * difference;
    }
    return total;
  };
  return reduce_rows(context, a, sum, of_row, [](double x, double y) { return x + y; });
}

}  // namespace lutra
