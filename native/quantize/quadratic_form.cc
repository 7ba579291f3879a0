#include "quantize/quadratic_form.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "ops/matrix64.h"
#include "ops/product.h"
#include "quantize/for_rows.h"

namespace lutra {

namespace {

// Rows of H that one product reads: 256 x k floats of scratch, 5.8 MB at k = 5,632.
constexpr int64_t kPanel = 256;

Status check_matrix(const TensorView& x, Dtype dtype, int64_t rows, int64_t cols, const char* what) {
  if (x.dtype != dtype) return error(Code::kDtype, what);
  if (x.rank != 2 || x.shape[0] != rows || x.shape[1] != cols) return error(Code::kShape, what, x.cols(), cols);
  return ok_status();
}

// The sum of products of n elements, in order.
double dot(const float* a, const float* b, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

double total(const double* values, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += values[i];
  return sum;
}

}  // namespace

Status quadratic_form_rows(Context& context, const TensorView& x, const TensorView& hessian, const TensorView& values) {
  const int64_t m = x.rows(), k = x.cols();
  LUTRA_TRY(check_matrix(x, Dtype::kF32, m, k, "quadraticForm needs f32 [m,k]"));
  LUTRA_TRY(require_triangle(hessian, k, "the Hessian must be f64, rows and columns as the matrix has columns"));
  if (values.dtype != Dtype::kF64) return error(Code::kDtype, "values of quadratic forms must be f64");
  if (values.rank != 1 || values.shape[0] != m)
    return error(Code::kShape, "one quadratic form a row is needed", values.elements(), m);
  const Matrix64 upper = upper_triangle(hessian);
  const int64_t panel = std::min(kPanel, k);
  const AlignedBuffer weight(static_cast<size_t>(panel * k) * sizeof(float));
  const AlignedBuffer reached(static_cast<size_t>(m * panel) * sizeof(float));
  if (!weight || !reached) return error(Code::kOutOfMemory, "no memory for quadraticForm", panel * (k + m));
  std::fill_n(values.as<double>(), m, 0.0);
  for (int64_t first = 0; first < k; first += panel) {
    const int64_t width = std::min(panel, k - first), rest = k - first;
    // H is symmetric: columns behind the block on the diagonal stand for both halves.
    LUTRA_TRY(for_rows(context, width, [&](int64_t row) {
      const double* in = upper.row(first + row) + first;
      float* out = weight.as<float>() + row * rest;
      for (int64_t j = 0; j < row; ++j) out[j] = static_cast<float>(upper.at(first + j, first + row));
      std::transform(in + row, in + width, out + row, [](double h) { return static_cast<float>(h); });
      std::transform(in + width, in + rest, out + width, [](double h) { return static_cast<float>(2 * h); });
    }));
    const RightOperand right{.data = weight.as<float>(), .stride = rest};
    LUTRA_TRY(product(context, m, width, rest, x.as<float>() + first, k, right, reached.as<float>(), width));
    LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
      values.as<double>()[row] += dot(x.as<float>() + row * k + first, reached.as<float>() + row * width, width);
    }));
  }
  return ok_status();
}

Status weighted_squares(Context& context, const TensorView& x, const TensorView& weights, double* value) {
  const int64_t m = x.rows(), k = x.cols();
  LUTRA_TRY(check_matrix(x, Dtype::kF32, m, k, "weightedSquares needs f32 [m,k]"));
  LUTRA_TRY(check_matrix(weights, Dtype::kF32, m, k, "weights of squares must be f32, one an element"));
  const AlignedBuffer rows(static_cast<size_t>(m) * sizeof(double));
  if (!rows) return error(Code::kOutOfMemory, "no memory for one number a row", m);
  LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
    const float *in = x.as<float>() + row * k, *weight = weights.as<float>() + row * k;
    double sum = 0.0;
    for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(weight[i]) * in[i] * in[i];
    rows.as<double>()[row] = sum;
  }));
  *value = total(rows.as<double>(), m);
  return ok_status();
}

Status quadratic_form(Context& context, const TensorView& x, const TensorView& hessian, double* value) {
  const AlignedBuffer rows(static_cast<size_t>(x.rows()) * sizeof(double));
  if (!rows) return error(Code::kOutOfMemory, "no memory for one number a row", x.rows());
  TensorView values;
  values.data = rows.as<void>();
  values.dtype = Dtype::kF64;
  values.rank = 1;
  values.shape[0] = x.rows();
  LUTRA_TRY(quadratic_form_rows(context, x, hessian, values));
  *value = total(rows.as<double>(), x.rows());
  return ok_status();
}

}  // namespace lutra
