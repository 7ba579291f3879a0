#include "quantize/refine_scales.h"

#include <algorithm>
#include <cmath>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/narrow.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int64_t kBandRows = 256;  // rows whose products with the Hessian are held at once; a head is never cut

// Some heads of the matrix, and what is known of them.
struct Band {
  const float* w;  // [heads d, k]
  const uint8_t* codes;
  const double* row_hessians;  // [heads, d, d]; null: d is 1 and the form of a row counts as it is
  float* scales;               // [heads d, groups]
  const float* zeros;
  int64_t heads;
  int64_t d;
  int64_t k;
  int64_t groups;
  Dtype scale_dtype;
  float* steps;    // [heads d, width]: W - Q, or codes less their zero, of one group
  float* pulled;   // [heads d, k]: (W - Q) H
  float* product;  // [heads d, k]: steps times the group's rows of H

  int64_t rows() const { return heads * d; }

  // Both for the columns [begin, begin + width) of group g.
  void take_errors(int64_t row, int64_t g, int64_t begin, int64_t width) const {
    const float scale = scales[row * groups + g], zero = zeros[row * groups + g];
    for (int64_t j = 0; j < width; ++j) {
      const int64_t at = row * k + begin + j;
      steps[row * width + j] = w[at] - scale * (static_cast<float>(codes[at]) - zero);
    }
  }
  void take_codes(int64_t row, int64_t g, int64_t begin, int64_t width) const {
    for (int64_t j = 0; j < width; ++j)
      steps[row * width + j] = static_cast<float>(codes[row * k + begin + j]) - zeros[row * groups + g];
  }

  // One group of row r of head h. With a scale larger by t the form changes by -2 t slope + t^2 curvature.
  void descend(int64_t h, int64_t r, int64_t g, int64_t begin, int64_t width) const {
    const int64_t row = h * d + r;
    const float* a = steps + row * width;
    const double* weights = row_hessians ? row_hessians + row * d : nullptr;
    double slope = 0, curvature = 0;
    for (int64_t p = 0; p < d; ++p) {
      const float* line = pulled + (h * d + p) * k + begin;
      double sum = 0;
      for (int64_t j = 0; j < width; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(line[j]);
      slope += weights ? weights[p] * sum : sum;
    }
    for (int64_t j = 0; j < width; ++j)
      curvature += static_cast<double>(a[j]) * static_cast<double>(product[row * k + begin + j]);
    if (weights) curvature *= weights[r];
    if (!(curvature > 0)) return;
    float* scale = scales + row * groups + g;
    const float next = stored_value(scale_dtype, static_cast<double>(*scale) + slope / curvature);
    const double step = static_cast<double>(next) - static_cast<double>(*scale);
    if (!(next > 0) || std::isinf(next) || !(step * (step * curvature - 2 * slope) < 0)) return;
    *scale = next;
    for (int64_t j = 0; j < k; ++j) pulled[row * k + j] -= static_cast<float>(step) * product[row * k + j];
  }
};

Status check(Context& context, int64_t group_size, const TensorView& w, const TensorView& codes,
             const TensorView& hessian, const TensorView& row_hessians, const TensorView& scales,
             const TensorView& zeros) {
  LUTRA_TRY(require_rank(w, 2, "refine_scales: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 2, "refine_scales: scales must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "refine_scales: w must be f32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "refine_scales: codes must be u8"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "refine_scales: scales must be f32"));
  LUTRA_TRY(require_dtype(zeros, Dtype::kF32, "refine_scales: zeros must be f32"));
  const int64_t m = w.shape[0], k = w.shape[1];
  if (group_size < 1) return error(Code::kOption, "refine_scales: a group has at least one column", group_size, 1);
  LUTRA_TRY(require_same_shape(w, codes, "refine_scales: shape of codes, against shape of w"));
  LUTRA_TRY(require_triangle(hessian, k, "refine_scales: the Hessian must be f64, rows and columns as w has columns"));
  LUTRA_TRY(require_equal(scales.shape[0], m, "refine_scales: rows of scales, against rows of w"));
  LUTRA_TRY(require_equal(scales.shape[1], ceil_div(k, group_size), "refine_scales: groups, against columns of w"));
  LUTRA_TRY(require_same_shape(scales, zeros, "refine_scales: shape of zeros, against shape of scales"));
  if (row_hessians.data) {
    LUTRA_TRY(require_rank(row_hessians, 3, "refine_scales: row Hessians must have 3 dimensions"));
    LUTRA_TRY(require_dtype(row_hessians, Dtype::kF64, "refine_scales: row Hessians must be f64"));
    const int64_t d = row_hessians.shape[1];
    LUTRA_TRY(require_equal(row_hessians.shape[2], d, "refine_scales: columns of a row Hessian, against its rows"));
    LUTRA_TRY(require_equal(m, row_hessians.shape[0] * d, "refine_scales: rows of w, against the row Hessians'"));
  }
  int64_t bad = -1;
  for (const TensorView* operand : {&w, &hessian, &row_hessians, &scales, &zeros}) {
    if (operand->data) LUTRA_TRY(find_non_finite(context, *operand, &bad));
    if (bad >= 0) return error(Code::kNonFinite, "refine_scales: an operand is not finite at this element", bad);
  }
  return ok_status();
}

// group_rows [width, k]: the rows of H of one group.
Status refine_band(Context& context, const Band& band, int64_t group_size, const Matrix64& hessian, float* group_rows) {
  const int64_t rows = band.rows(), k = band.k;
  const auto multiply = [&](int64_t width) {
    const RightOperand right{.data = group_rows, .stride = k, .k_major = true};
    return product(context, rows, k, width, band.steps, width, right, band.product, k);
  };
  std::fill_n(band.pulled, rows * k, 0.0f);
  for (int64_t g = 0; g < band.groups; ++g) {
    const int64_t begin = g * group_size, width = std::min(group_size, k - begin);
    LUTRA_TRY(narrow_rows(context, hessian, begin, width, group_rows));
    LUTRA_TRY(for_rows(context, rows, [&](int64_t row) { band.take_errors(row, g, begin, width); }));
    LUTRA_TRY(multiply(width));
    LUTRA_TRY(for_rows(context, rows, [&](int64_t row) {
      for (int64_t j = row * k; j < (row + 1) * k; ++j) band.pulled[j] += band.product[j];
    }));
  }
  for (int64_t g = 0; g < band.groups; ++g) {
    const int64_t begin = g * group_size, width = std::min(group_size, k - begin);
    LUTRA_TRY(narrow_rows(context, hessian, begin, width, group_rows));
    LUTRA_TRY(for_rows(context, rows, [&](int64_t row) { band.take_codes(row, g, begin, width); }));
    LUTRA_TRY(multiply(width));
    // Rows of a head one after the other: each step changes what the next one sees.
    for (int64_t r = 0; r < band.d; ++r)
      LUTRA_TRY(finished(context.parallel(band.heads, [&](int64_t h) { band.descend(h, r, g, begin, width); })));
  }
  return ok_status();
}

}  // namespace

Status refine_scales(Context& context, int64_t group_size, Dtype scale_dtype, const TensorView& w,
                     const TensorView& codes, const TensorView& hessian, const TensorView& row_hessians,
                     const TensorView& scales, const TensorView& zeros) {
  LUTRA_TRY(check(context, group_size, w, codes, hessian, row_hessians, scales, zeros));
  const int64_t m = w.shape[0], k = w.shape[1], groups = scales.shape[1];
  if (m == 0 || k == 0) return ok_status();
  const int64_t d = row_hessians.data ? row_hessians.shape[1] : 1, heads = m / d;
  const int64_t band_heads = std::clamp<int64_t>(kBandRows / d, 1, heads);
  const int64_t width = std::min(group_size, k);
  const size_t held = static_cast<size_t>(band_heads * d * k) * sizeof(float);
  // The product uses the context's scratch: these live beside it.
  const AlignedBuffer group_rows(static_cast<size_t>(width * k) * sizeof(float));
  const AlignedBuffer steps(static_cast<size_t>(band_heads * d * width) * sizeof(float));
  const AlignedBuffer pulled(held), products(held);
  if (!group_rows || !steps || !pulled || !products) return out_of_memory(static_cast<int64_t>(2 * held));
  for (int64_t first = 0; first < heads; first += band_heads) {
    const int64_t row = first * d;
    const Band band{w.as<float>() + row * k,
                    codes.as<uint8_t>() + row * k,
                    row_hessians.data ? row_hessians.as<double>() + row * d : nullptr,
                    scales.as<float>() + row * groups,
                    zeros.as<float>() + row * groups,
                    std::min(band_heads, heads - first),
                    d,
                    k,
                    groups,
                    scale_dtype,
                    steps.as<float>(),
                    pulled.as<float>(),
                    products.as<float>()};
    LUTRA_TRY(refine_band(context, band, group_size, upper_triangle(hessian), group_rows.as<float>()));
  }
  return ok_status();
}

}  // namespace lutra
