#include "quantize/head_quadratic_form.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "quantize/for_rows.h"
#include "quantize/narrow.h"

namespace lutra {

namespace {

constexpr int64_t kPanel = 256;  // rows of H that one product reads

Status check(const TensorView& x, const TensorView& hessian, const TensorView& row_hessians) {
  LUTRA_TRY(require_rank(x, 2, "the matrix must have 2 dimensions"));
  LUTRA_TRY(require_rank(row_hessians, 3, "row Hessians must have 3 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "the matrix must be f32"));
  LUTRA_TRY(require_dtype(row_hessians, Dtype::kF64, "row Hessians must be f64"));
  const int64_t k = x.shape[1], d = row_hessians.shape[1];
  LUTRA_TRY(require_triangle(hessian, k, "the Hessian must be f64, rows and columns as the matrix has columns"));
  LUTRA_TRY(require_equal(row_hessians.shape[2], d, "columns of a row Hessian, against its rows"));
  return require_equal(x.shape[0], row_hessians.shape[0] * d, "rows of the matrix, against those of the row Hessians");
}

}  // namespace

Status quadratic_form_of_heads(Context& context, const TensorView& x, const TensorView& hessian,
                               const TensorView& row_hessians, double* value) {
  LUTRA_TRY(check(x, hessian, row_hessians));
  const int64_t m = x.shape[0], k = x.shape[1], heads = row_hessians.shape[0], d = row_hessians.shape[1];
  const int64_t panel = std::min(kPanel, k);
  // The products use the context's scratch: these live beside it.
  const AlignedBuffer row_weights(static_cast<size_t>(m * d) * sizeof(float));
  const AlignedBuffer weighed(x.bytes());  // G x
  const AlignedBuffer columns(static_cast<size_t>(panel * k) * sizeof(float));
  const AlignedBuffer pulled(static_cast<size_t>(m * panel) * sizeof(float));  // some columns of x H
  const AlignedBuffer sums(static_cast<size_t>(m) * sizeof(double));
  if (!row_weights || !weighed || !columns || !pulled || !sums) return out_of_memory(static_cast<int64_t>(x.bytes()));
  LUTRA_TRY(narrow_rows(context, row_hessians.as<double>(), m, d, row_weights.as<float>()));
  for (int64_t h = 0; h < heads; ++h) {
    const RightOperand right{.data = x.as<float>() + h * d * k, .stride = k, .k_major = true};
    LUTRA_TRY(
        product(context, d, k, d, row_weights.as<float>() + h * d * d, d, right, weighed.as<float>() + h * d * k, k));
  }
  std::fill_n(sums.as<double>(), m, 0.0);
  for (int64_t first = 0; first < k; first += panel) {
    const int64_t width = std::min(panel, k - first);
    // H is symmetric: its rows are the columns that the product needs.
    LUTRA_TRY(narrow_rows(context, upper_triangle(hessian), first, width, columns.as<float>()));
    const RightOperand right{.data = columns.as<float>(), .stride = k};
    LUTRA_TRY(product(context, m, width, k, x.as<float>(), k, right, pulled.as<float>(), width));
    LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
      const float* left = weighed.as<float>() + row * k + first;
      double sum = 0.0;
      for (int64_t j = 0; j < width; ++j)
        sum += static_cast<double>(left[j]) * static_cast<double>(pulled.as<float>()[row * width + j]);
      sums.as<double>()[row] += sum;
    }));
  }
  *value = 0.0;
  for (int64_t row = 0; row < m; ++row) *value += sums.as<double>()[row];
  return ok_status();
}

}  // namespace lutra
