// Causal grouped-query attention. A part is a block of query rows of one key-value head; "row" i of that head is query
// i / group of the head's i % group-th query head, so that the heads that share keys read them together.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/activation/activation.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

constexpr int64_t kBlockRows = 16;   // a multiple of kAttentionRows
constexpr int64_t kBlockKeys = 256;  // keys that stay in cache while all rows of the block meet them

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

struct Task {
  const float* q;
  const float* keys;
  const float* values;
  float* y;
  AttentionShape shape;
  int64_t n;
  int64_t group;       // query heads per key-value head
  int64_t row_length;  // of a score row
  const AttentionKernels& kernels = attention_kernels();
  const ActivationKernels& activation = activation_kernels();

  int64_t key_stride() const { return shape.kv_heads * shape.head_dim; }
  int64_t place(int64_t kv_head, int64_t row) const {
    return (row / group * shape.heads + kv_head * group + row % group) * shape.head_dim;
  }
  // The keys that a row sees.
  Range visible(int64_t row) const {
    const int64_t end = shape.start + row / group + 1;
    return {shape.window > 0 ? std::max<int64_t>(0, end - shape.window) : 0, end};
  }

  // Scores of up to kAttentionRows rows against the keys that any of them sees. Score rows begin at key `base`.
  void score(int64_t kv_head, int64_t row, int64_t rows, Range chunk, int64_t base, float* scores) const {
    const float* queries[kAttentionRows];
    for (int64_t r = 0; r < rows; ++r) queries[r] = q + place(kv_head, row + r);
    const int64_t begin = std::max(chunk.begin, visible(row).begin);
    const int64_t end = std::min(chunk.end, visible(row + rows - 1).end);
    if (begin >= end) return;
    kernels.scores(queries, rows, keys + begin * key_stride() + kv_head * shape.head_dim, key_stride(), end - begin,
                   shape.head_dim, 1.0f / std::sqrt(static_cast<float>(shape.head_dim)), scores + begin - base,
                   row_length);
  }

  void mix_range(int64_t kv_head, Range keys_range, int64_t base, const float* weights, int64_t rows,
                 float* const* out) const {
    if (keys_range.begin >= keys_range.end) return;
    kernels.mix(weights + keys_range.begin - base, row_length, rows,
                values + keys_range.begin * key_stride() + kv_head * shape.head_dim, key_stride(),
                keys_range.end - keys_range.begin, shape.head_dim, out);
  }

  // Adds the chunk's values: keys that all rows see together, the ragged edges row by row, ascending for every row.
  void mix(int64_t kv_head, int64_t row, int64_t rows, Range chunk, int64_t base, const float* weights) const {
    float* out[kAttentionRows];
    for (int64_t r = 0; r < rows; ++r) out[r] = y + place(kv_head, row + r);
    Range common{std::max(chunk.begin, visible(row + rows - 1).begin), std::min(chunk.end, visible(row).end)};
    if (common.begin >= common.end) common = {chunk.end, chunk.end};
    for (int64_t r = 0; r < rows; ++r) {
      const Range own = visible(row + r);
      mix_range(kv_head, {std::max(chunk.begin, own.begin), std::min(common.begin, own.end)}, base,
                weights + r * row_length, 1, out + r);
    }
    mix_range(kv_head, common, base, weights, rows, out);
    for (int64_t r = 0; r < rows; ++r) {
      const Range own = visible(row + r);
      mix_range(kv_head, {common.end, std::min(chunk.end, own.end)}, base, weights + r * row_length, 1, out + r);
    }
  }

  // Rows [first, last) of one key-value head; scores holds kBlockRows rows of row_length.
  void run(int64_t kv_head, int64_t first, int64_t last, float* scores) const {
    const Range all{visible(first).begin, visible(last - 1).end};
    for (int64_t key = all.begin; key < all.end; key += kBlockKeys)
      for (int64_t row = first; row < last; row += kAttentionRows)
        score(kv_head, row, std::min(kAttentionRows, last - row), {key, std::min(all.end, key + kBlockKeys)}, all.begin,
              scores + (row - first) * row_length);
    double sums[kBlockRows];
    for (int64_t row = first; row < last; ++row) {
      const Range own = visible(row);
      float* line = scores + (row - first) * row_length + own.begin - all.begin;
      const int64_t count = own.end - own.begin;
      sums[row - first] = activation.exp_sum(line, activation.max(line, count), line, count);
      std::fill_n(y + place(kv_head, row), shape.head_dim, 0.0f);
    }
    for (int64_t key = all.begin; key < all.end; key += kBlockKeys)
      for (int64_t row = first; row < last; row += kAttentionRows)
        mix(kv_head, row, std::min(kAttentionRows, last - row), {key, std::min(all.end, key + kBlockKeys)}, all.begin,
            scores + (row - first) * row_length);
    for (int64_t row = first; row < last; ++row)
      activation.scale(y + place(kv_head, row), static_cast<float>(1.0 / sums[row - first]), shape.head_dim);
  }
};

Status check(const TensorView& q, const TensorView& keys, const TensorView& values, const AttentionShape& shape,
             const TensorView& y) {
  LUTRA_TRY(require_rank(q, 2, "attention: q must have 2 dimensions"));
  LUTRA_TRY(require_rank(keys, 2, "attention: keys must have 2 dimensions"));
  LUTRA_TRY(require_rank(values, 2, "attention: values must have 2 dimensions"));
  LUTRA_TRY(require_rank(y, 2, "attention: y must have 2 dimensions"));
  LUTRA_TRY(require_dtype(q, Dtype::kF32, "attention: q must be f32"));
  LUTRA_TRY(require_dtype(keys, Dtype::kF32, "attention: keys must be f32"));
  LUTRA_TRY(require_dtype(values, Dtype::kF32, "attention: values must be f32"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "attention: y must be f32"));
  if (shape.heads <= 0) return error(Code::kOption, "attention: heads must be positive", shape.heads, 1);
  if (shape.kv_heads <= 0) return error(Code::kOption, "attention: kv_heads must be positive", shape.kv_heads, 1);
  if (shape.head_dim <= 0) return error(Code::kOption, "attention: head_dim must be positive", shape.head_dim, 1);
  if (shape.heads % shape.kv_heads)
    return error(Code::kOption, "attention: heads must be a multiple of kv_heads", shape.heads, shape.kv_heads);
  if (shape.window < 0) return error(Code::kOption, "attention: window is negative", shape.window, 0);
  if (shape.start < 0) return error(Code::kOption, "attention: start is negative", shape.start, 0);
  int64_t width = 0;
  if (!checked_mul(shape.heads, shape.head_dim, &width))
    return error(Code::kOption, "attention: heads times head_dim overflows", shape.heads, shape.head_dim);
  LUTRA_TRY(require_equal(q.shape[1], width, "attention: columns of q, against heads times head_dim"));
  LUTRA_TRY(require_same_shape(q, y, "attention: shape of y, against shape of q"));
  LUTRA_TRY(require_equal(keys.shape[1], shape.kv_heads * shape.head_dim,
                          "attention: columns of keys, against kv_heads times head_dim"));
  LUTRA_TRY(require_same_shape(keys, values, "attention: shape of values, against shape of keys"));
  LUTRA_TRY(require_apart(y, q, "attention: y may not overlap q"));
  LUTRA_TRY(require_apart(y, keys, "attention: y may not overlap keys"));
  LUTRA_TRY(require_apart(y, values, "attention: y may not overlap values"));
  if (shape.start > keys.shape[0] - q.shape[0])
    return error(Code::kOption, "attention: start and rows of q exceed the capacity", shape.start,
                 keys.shape[0] - q.shape[0]);
  return ok_status();
}

}  // namespace

Status attention(Context& context, const TensorView& q, const TensorView& keys, const TensorView& values,
                 const AttentionShape& shape, const TensorView& y) {
  LUTRA_TRY(check(q, keys, values, shape, y));
  const int64_t n = q.shape[0];
  if (n == 0) return ok_status();
  const int64_t group = shape.heads / shape.kv_heads;
  // A block of rows spans at most kBlockRows queries, so a windowed row needs that much more than the window.
  int64_t row_length = shape.start + n;
  if (shape.window > 0) row_length = std::min(row_length, std::min(row_length, shape.window) + kBlockRows);
  const Task task{q.as<float>(), keys.as<float>(), values.as<float>(), y.as<float>(), shape, n, group, row_length};
  const size_t slot_bytes = static_cast<size_t>(kBlockRows * row_length) * sizeof(float);
  const size_t bytes = LaneScratch::bytes(context, slot_bytes);
  void* memory = context.scratch(bytes);
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory, slot_bytes);
  const int64_t rows = n * group;
  const int64_t blocks = ceil_div(rows, kBlockRows);
  return finished(context.parallel(blocks * shape.kv_heads, [&](int64_t part) {
    const LaneScratch::Slot slot(lanes);
    // The longest rows first: the last part of a region should be a short one.
    const int64_t block = blocks - 1 - part / shape.kv_heads;
    task.run(part % shape.kv_heads, block * kBlockRows, std::min(rows, (block + 1) * kBlockRows), slot.as<float>());
  }));
}

}  // namespace lutra
