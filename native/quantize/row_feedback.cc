#include "quantize/row_feedback.h"

#include <cmath>
#include <cstring>

#include "core/aligned_buffer.h"
#include "ops/indices.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "quantize/for_rows.h"

namespace lutra {

namespace {

Status check(const TensorView& w, const TensorView& errors, const TensorView& factors, int64_t first,
             const TensorView& block) {
  LUTRA_TRY(require_rank(w, 3, "row feedback: w must have 3 dimensions"));
  LUTRA_TRY(require_rank(errors, 3, "row feedback: errors must have 3 dimensions"));
  LUTRA_TRY(require_rank(factors, 3, "row feedback: the factors must have 3 dimensions"));
  LUTRA_TRY(require_rank(block, 3, "row feedback: the block must have 3 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "row feedback: w must be f32"));
  LUTRA_TRY(require_dtype(errors, Dtype::kF32, "row feedback: errors must be f32"));
  LUTRA_TRY(require_dtype(factors, Dtype::kF64, "row feedback: the factors must be f64"));
  LUTRA_TRY(require_dtype(block, Dtype::kF32, "row feedback: the block must be f32"));
  const int64_t d = w.shape[0], heads = w.shape[1];
  LUTRA_TRY(require_same_shape(w, errors, "row feedback: shape of errors, against shape of w"));
  LUTRA_TRY(require_equal(factors.shape[0], heads, "row feedback: factors, against heads of w"));
  LUTRA_TRY(require_equal(factors.shape[1], d, "row feedback: rows of a factor, against rows of a head"));
  LUTRA_TRY(require_equal(factors.shape[2], d, "row feedback: columns of a factor, against rows of a head"));
  LUTRA_TRY(require_equal(block.shape[1], heads, "row feedback: heads of the block, against heads of w"));
  LUTRA_TRY(require_equal(block.shape[2], w.shape[2], "row feedback: columns of the block, against columns of w"));
  if (first < 0 || first > d - block.shape[0])
    return error(Code::kOption, "row feedback: the block reaches past the rows", first, d - block.shape[0]);
  LUTRA_TRY(require_apart(block, w, "row feedback: the block may not overlap w"));
  LUTRA_TRY(require_apart(block, errors, "row feedback: the block may not overlap errors"));
  for (int64_t i = 0; i < heads * d; ++i) {
    const double pivot = factors.as<double>()[i * d + i % d];
    if (!(pivot > 0) || !std::isfinite(pivot))
      return error(Code::kNotPositiveDefinite, "row feedback: a factor's diagonal is not positive in this row", i % d);
  }
  return ok_status();
}

// shares[i, p] = (M[:first, B] M[B, B]^-1)[p, i] of one head: what row first + i takes of the error of row p.
void shares_of(const double* m, int64_t d, int64_t first, int64_t n, double* solved, float* shares) {
  for (int64_t p = 0; p < first; ++p)
    for (int64_t i = 0; i < n; ++i) {
      double sum = m[p * d + first + i];
      for (int64_t l = 0; l < i; ++l) sum -= solved[l] * m[(first + l) * d + first + i];
      solved[i] = sum / m[(first + i) * d + first + i];
      shares[i * first + p] = static_cast<float>(solved[i]);
    }
}

}  // namespace

Status compensate_rows(Context& context, const TensorView& w, const TensorView& errors, const TensorView& factors,
                       int64_t first, const TensorView& block) {
  LUTRA_TRY(check(w, errors, factors, first, block));
  const int64_t d = w.shape[0], heads = w.shape[1], k = w.shape[2], n = block.shape[0];
  const int64_t width = heads * k;
  // The product uses the context's scratch: these live beside it.
  const AlignedBuffer shares(static_cast<size_t>(heads * n * first) * sizeof(float));
  const AlignedBuffer solved(static_cast<size_t>(heads * n) * sizeof(double));
  if (!shares || !solved) return out_of_memory(heads * n * first * static_cast<int64_t>(sizeof(float)));
  LUTRA_TRY(finished(context.parallel(heads, [&](int64_t h) {
    shares_of(factors.as<double>() + h * d * d, d, first, n, solved.as<double>() + h * n,
              shares.as<float>() + h * n * first);
  })));
  for (int64_t h = 0; h < heads; ++h) {
    const RightOperand right{.data = errors.as<float>() + h * k, .stride = width, .k_major = true};
    LUTRA_TRY(product(context, n, k, first, shares.as<float>() + h * n * first, first, right, block.as<float>() + h * k,
                      width));
  }
  return for_rows(context, n * heads, [&](int64_t row) {
    const float* in = w.as<float>() + first * width + row * k;
    float* out = block.as<float>() + row * k;
    for (int64_t j = 0; j < k; ++j) out[j] += in[j];
  });
}

Status gather_rows(Context& context, const TensorView& x, const TensorView& index, const TensorView& y) {
  if (x.rank < 2 || y.rank < 2 || x.cols() != y.cols())
    return error(Code::kShape, "both matrices have the same columns", y.cols(), x.cols());
  if (x.dtype != y.dtype || (x.dtype != Dtype::kF32 && x.dtype != Dtype::kU8))
    return error(Code::kDtype, "both matrices are f32, or both are u8");
  if (index.dtype != Dtype::kI32) return error(Code::kDtype, "row numbers must be i32");
  if (index.rank != 1 || index.shape[0] != y.rows())
    return error(Code::kShape, "one row number a row is needed", index.elements(), y.rows());
  LUTRA_TRY(require_apart(y, x, "the gathered rows may not overlap the matrix"));
  Indices from;
  LUTRA_TRY(from.take(index, 0, x.rows(), "row number out of range"));
  const int64_t bytes = x.cols() * static_cast<int64_t>(dtype_bytes(x.dtype));
  return for_rows(context, y.rows(), [&](int64_t row) {
    std::memcpy(y.as<uint8_t>() + row * bytes, x.as<uint8_t>() + from[row] * bytes, static_cast<size_t>(bytes));
  });
}

}  // namespace lutra
