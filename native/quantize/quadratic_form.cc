#include "quantize/quadratic_form.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "ops/linear.h"
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

TensorView matrix(void* data, int64_t rows, int64_t cols) {
  TensorView view;
  view.data = data;
  view.rank = 2;
  view.shape[0] = rows;
  view.shape[1] = cols;
  return view;
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

Status quadratic_form(Context& context, const TensorView& x, const TensorView& hessian, double* value) {
  const int64_t m = x.rows(), k = x.cols();
  LUTRA_TRY(check_matrix(x, Dtype::kF32, m, k, "quadraticForm needs f32 [m,k]"));
  LUTRA_TRY(check_matrix(hessian, Dtype::kF64, k, k, "the Hessian must be f64 [k,k]"));
  const int64_t panel = std::min(kPanel, k);
  const AlignedBuffer weight(static_cast<size_t>(panel * k) * sizeof(float));
  const AlignedBuffer product(static_cast<size_t>(m * panel) * sizeof(float));
  const AlignedBuffer rows(static_cast<size_t>(m) * sizeof(double));
  if (!weight || !product || !rows) return error(Code::kOutOfMemory, "no memory for quadraticForm", panel * (k + m));
  std::fill_n(rows.as<double>(), m, 0.0);
  for (int64_t first = 0; first < k; first += panel) {
    const int64_t width = std::min(panel, k - first);
    LUTRA_TRY(for_rows(context, width, [&](int64_t row) {
      const double* in = hessian.as<double>() + (first + row) * k;
      std::transform(in, in + k, weight.as<float>() + row * k, [](double h) { return static_cast<float>(h); });
    }));
    // H is symmetric: its rows are what `linear` multiplies with.
    LUTRA_TRY(linear(context, x, matrix(weight.as<void>(), width, k), matrix(product.as<void>(), m, width)));
    LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
      rows.as<double>()[row] += dot(x.as<float>() + row * k + first, product.as<float>() + row * width, width);
    }));
  }
  *value = total(rows.as<double>(), m);
  return ok_status();
}

}  // namespace lutra
