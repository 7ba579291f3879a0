// Rows in and out: embedding and the key-value cache.
#include <algorithm>
#include <cstring>

#include "kernels/convert/convert.h"
#include "ops/indices.h"
#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

constexpr int64_t kPartElements = int64_t{1} << 16;

void widen_row(const ConvertKernels& kernels, const TensorView& table, int64_t row, float* y) {
  const int64_t d = table.shape[1];
  switch (table.dtype) {
    case Dtype::kF16:
      return kernels.f16_to_f32(table.as<uint16_t>() + row * d, y, d);
    case Dtype::kBF16:
      return kernels.bf16_to_f32(table.as<uint16_t>() + row * d, y, d);
    default:
      std::memcpy(y, table.as<float>() + row * d, static_cast<size_t>(d) * sizeof(float));
  }
}

}  // namespace

Status embedding(Context& context, const TensorView& table, const TensorView& ids, const TensorView& y) {
  LUTRA_TRY(require_rank(table, 2, "embedding: table must have 2 dimensions"));
  LUTRA_TRY(require_rank(ids, 1, "embedding: ids must have 1 dimension"));
  LUTRA_TRY(require_rank(y, 2, "embedding: y must have 2 dimensions"));
  LUTRA_TRY(require_weight_dtype(table, "embedding: table must be f32, f16 or bf16"));
  LUTRA_TRY(require_dtype(ids, Dtype::kI32, "embedding: ids must be i32"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "embedding: y must be f32"));
  const int64_t n = ids.shape[0];
  const int64_t d = table.shape[1];
  LUTRA_TRY(require_equal(y.shape[0], n, "embedding: rows of y, against ids"));
  LUTRA_TRY(require_equal(y.shape[1], d, "embedding: columns of y, against columns of table"));
  LUTRA_TRY(require_apart(y, table, "embedding: y may not overlap table"));
  Indices id;
  LUTRA_TRY(id.take(ids, 0, table.shape[0], "embedding: an id lies outside the table"));
  const ConvertKernels& kernels = convert_kernels();
  const int64_t part_rows = std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, d));
  return finished(context.parallel(ceil_div(n, part_rows), [&](int64_t part) {
    const int64_t end = std::min(n, (part + 1) * part_rows);
    for (int64_t t = part * part_rows; t < end; ++t) widen_row(kernels, table, id[t], y.as<float>() + t * d);
  }));
}

Status cache_append(Context& context, const TensorView& x, const TensorView& cache, int64_t start) {
  LUTRA_TRY(require_rank(x, 2, "cache_append: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(cache, 2, "cache_append: cache must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "cache_append: x must be f32"));
  LUTRA_TRY(require_dtype(cache, Dtype::kF32, "cache_append: cache must be f32"));
  const int64_t n = x.shape[0];
  const int64_t width = x.shape[1];
  LUTRA_TRY(require_equal(cache.shape[1], width, "cache_append: columns of cache, against columns of x"));
  LUTRA_TRY(require_apart(cache, x, "cache_append: cache may not overlap x"));
  if (start < 0) return error(Code::kOption, "cache_append: start is negative", start, 0);
  if (start > cache.shape[0] - n)
    return error(Code::kOption, "cache_append: start and rows of x exceed the capacity", start, cache.shape[0] - n);
  const int64_t part_rows = std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, width));
  return finished(context.parallel(ceil_div(n, part_rows), [&](int64_t part) {
    const int64_t row = part * part_rows;
    const int64_t rows = std::min(part_rows, n - row);
    std::memcpy(cache.as<float>() + (start + row) * width, x.as<float>() + row * width,
                static_cast<size_t>(rows * width) * sizeof(float));
  }));
}

}  // namespace lutra
