#include "quantize/pair.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/operand.h"
#include "ops/product.h"
#include "quantize/for_rows.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr float kLargestCode = 127.0f;

float row_scale(const float* x, int64_t k) {
  float largest = 0.0f;
  for (int64_t j = 0; j < k; ++j) largest = std::max(largest, std::fabs(x[j]));
  // The scale of a row of the smallest numbers would be zero.
  return largest / kLargestCode > 0 ? largest / kLargestCode : 1.0f;
}

float row_code(float x, float scale) {
  const double code = std::floor(static_cast<double>(x) / static_cast<double>(scale) + 0.5);
  return static_cast<float>(std::clamp<double>(code, -kLargestCode, kLargestCode));
}

}  // namespace

Status round_rows(Context& context, Dtype dtype, const TensorView& x, const TensorView& stored) {
  LUTRA_TRY(require_rank(x, 2, "round_rows: x must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "round_rows: x must be f32"));
  LUTRA_TRY(require_dtype(stored, Dtype::kF32, "round_rows: the result must be f32"));
  LUTRA_TRY(require_same_shape(x, stored, "round_rows: shape of the result, against x"));
  if (dtype != Dtype::kF16 && dtype != Dtype::kBF16 && dtype != Dtype::kI8)
    return error(Code::kDtype, "round_rows: pairs are stored as f16, bf16 or i8", static_cast<int64_t>(dtype));
  const int64_t k = x.shape[1];
  std::atomic<int64_t> beyond{0};
  LUTRA_TRY(for_rows(context, x.shape[0], [&](int64_t row) {
    const float* in = x.as<float>() + row * k;
    float* out = stored.as<float>() + row * k;
    int64_t infinite = 0;
    if (dtype == Dtype::kI8) {
      const float scale = row_scale(in, k);
      for (int64_t j = 0; j < k; ++j) out[j] = scale * row_code(in[j], scale);
    } else {
      for (int64_t j = 0; j < k; ++j) out[j] = stored_value(dtype, static_cast<double>(in[j]));
    }
    for (int64_t j = 0; j < k; ++j) infinite += !std::isfinite(out[j]);
    if (infinite) beyond.fetch_add(infinite, std::memory_order_relaxed);
  }));
  if (beyond.load() == 0) return ok_status();
  return error(Code::kOption, "round_rows: numbers of the pair exceed its storage type", beyond.load(), 0);
}

Status store_rows_int8(Context& context, const TensorView& x, const TensorView& codes, const TensorView& scales) {
  LUTRA_TRY(require_rank(x, 2, "store_rows_int8: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 1, "store_rows_int8: scales must have one dimension"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "store_rows_int8: x must be f32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kI8, "store_rows_int8: codes must be i8"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "store_rows_int8: scales must be f32"));
  LUTRA_TRY(require_same_shape(x, codes, "store_rows_int8: shape of codes, against x"));
  LUTRA_TRY(require_equal(scales.shape[0], x.shape[0], "store_rows_int8: scales, against rows of x"));
  const int64_t k = x.shape[1];
  return for_rows(context, x.shape[0], [&](int64_t row) {
    const float* in = x.as<float>() + row * k;
    const float scale = row_scale(in, k);
    scales.as<float>()[row] = scale;
    for (int64_t j = 0; j < k; ++j) codes.as<int8_t>()[row * k + j] = static_cast<int8_t>(row_code(in[j], scale));
  });
}

Status check_pair(const TensorView& w, const TensorView& b, const TensorView& a) {
  for (const TensorView* operand : {&w, &b, &a}) {
    LUTRA_TRY(require_rank(*operand, 2, "pair: operands have 2 dimensions"));
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "pair: operands are f32"));
  }
  LUTRA_TRY(require_equal(b.shape[0], w.shape[0], "pair: rows of b, against rows of w"));
  LUTRA_TRY(require_equal(a.shape[1], w.shape[1], "pair: columns of a, against columns of w"));
  LUTRA_TRY(require_equal(b.shape[1], a.shape[0], "pair: columns of b, against rows of a"));
  const int64_t rank = a.shape[0], most = std::min(w.shape[0], w.shape[1]);
  return rank >= 1 && rank <= most ? ok_status() : error(Code::kOption, "pair: the rank does not fit w", rank, most);
}

Status subtract_pair(Context& context, const TensorView& w, const TensorView& b, const TensorView& a,
                     const TensorView& rest) {
  LUTRA_TRY(check_pair(w, b, a));
  LUTRA_TRY(require_dtype(rest, Dtype::kF32, "subtract_pair: the result must be f32"));
  LUTRA_TRY(require_same_shape(w, rest, "subtract_pair: shape of the result, against w"));
  for (const TensorView* operand : {&w, &b, &a})
    LUTRA_TRY(require_apart(rest, *operand, "subtract_pair: the result overlaps an operand"));
  const int64_t m = w.shape[0], k = w.shape[1], rank = a.shape[0];
  const RightOperand rows{a.data, Dtype::kF32, k, true};
  LUTRA_TRY(product(context, m, k, rank, b.as<float>(), rank, rows, rest.as<float>(), k));
  return for_rows(context, m, [&](int64_t row) {
    for (int64_t j = row * k; j < (row + 1) * k; ++j) rest.as<float>()[j] = w.as<float>()[j] - rest.as<float>()[j];
  });
}

}  // namespace lutra
