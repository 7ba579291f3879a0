#include "quantize/decoupleq.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product64.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/quadratic_form.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int64_t kProductRows = 384;  // of the Hessian, that are multiplied together

}  // namespace

Status check_finite(Context& context, const TensorView& values, const char* what) {
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, values, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, what, bad);
}

Status check_weights(Context& context, const TensorView& w) {
  LUTRA_TRY(require_rank(w, 2, "decoupleq: w must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "decoupleq: w must be f32"));
  return check_finite(context, w, "decoupleq: w is not finite at this element");
}

Status check_damped(Context& context, const DampedHessian& metric, int64_t k) {
  LUTRA_TRY(require_rank(metric.diagonal, 1, "decoupleq: the diagonal must have 1 dimension"));
  LUTRA_TRY(require_dtype(metric.diagonal, Dtype::kF64, "decoupleq: the diagonal must be f64"));
  LUTRA_TRY(
      require_triangle(metric.hessian, k, "decoupleq: the Hessian must be f64, rows and columns as w has columns"));
  LUTRA_TRY(require_equal(metric.diagonal.shape[0], k, "decoupleq: elements of the diagonal, against columns of w"));
  LUTRA_TRY(check_finite(context, metric.hessian, "decoupleq: the Hessian is not finite at this element"));
  return check_finite(context, metric.diagonal, "decoupleq: the diagonal is not finite at this element");
}

Status damped_form_rows(Context& context, const DampedHessian& metric, const TensorView& differences,
                        const TensorView& values) {
  LUTRA_TRY(require_rank(differences, 2, "decoupleq: differences must have 2 dimensions"));
  LUTRA_TRY(check_damped(context, metric, differences.shape[1]));
  LUTRA_TRY(quadratic_form_rows(context, differences, metric.hessian, values));
  const int64_t k = differences.shape[1];
  return for_rows(context, differences.shape[0], [&](int64_t row) {
    const float* in = differences.as<float>() + row * k;
    double sum = values.as<double>()[row];
    for (int64_t j = 0; j < k; ++j) sum += metric.diagonal.as<double>()[j] * static_cast<double>(in[j]) * in[j];
    values.as<double>()[row] = sum;
  });
}

Status offsets_of_grid(Context& context, const TensorView& scales, const TensorView& zeros, Dtype storage,
                       const TensorView& offsets) {
  for (const TensorView& values : {scales, zeros, offsets}) {
    LUTRA_TRY(require_rank(values, 2, "decoupleq: scales, zeros and offsets must have 2 dimensions"));
    LUTRA_TRY(require_dtype(values, Dtype::kF32, "decoupleq: scales, zeros and offsets must be f32"));
    LUTRA_TRY(require_same_shape(scales, values, "decoupleq: shape of zeros and offsets, against shape of scales"));
  }
  if (!is_float(storage)) return error(Code::kDtype, "decoupleq: values are stored in f16, bf16 or f32");
  return for_rows(context, scales.shape[0], [&](int64_t row) {
    for (int64_t at = row * scales.shape[1]; at < (row + 1) * scales.shape[1]; ++at)
      offsets.as<float>()[at] =
          stored_value(storage, -static_cast<double>(scales.as<float>()[at]) * zeros.as<float>()[at]);
  });
}

Status decoupleq_pull(Context& context, const DampedHessian& metric, const TensorView& w, const TensorView& pulled) {
  LUTRA_TRY(check_weights(context, w));
  LUTRA_TRY(check_damped(context, metric, w.shape[1]));
  LUTRA_TRY(require_dtype(pulled, Dtype::kF64, "decoupleq: pulled must be f64"));
  LUTRA_TRY(require_same_shape(w, pulled, "decoupleq: shape of pulled, against shape of w"));
  const int64_t m = w.shape[0], k = w.shape[1];
  const Matrix64 hessian = upper_triangle(metric.hessian);
  const int64_t panel = std::min(k, kProductRows);
  const AlignedBuffer lines(static_cast<size_t>(panel * k) * sizeof(double));
  if (!lines) return out_of_memory(panel * k * static_cast<int64_t>(sizeof(double)));
  for (int64_t first = 0; first < k; first += panel) {
    const int64_t count = std::min(panel, k - first);
    LUTRA_TRY(read_symmetric(context, hessian, first, count, 0, k, lines.as<double>(), k, [](double h) { return h; }));
    LUTRA_TRY(product64(context, m, count, k, w.as<float>(), lines.as<double>(), pulled.as<double>() + first, k));
  }
  return for_rows(context, m, [&](int64_t row) {
    for (int64_t j = 0; j < k; ++j)
      pulled.as<double>()[row * k + j] +=
          metric.diagonal.as<double>()[j] * static_cast<double>(w.as<float>()[row * k + j]);
  });
}

}  // namespace lutra
