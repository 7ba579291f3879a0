#include "ops/attention_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/aligned_buffer.h"
#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "ops/linear.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product.h"

namespace lutra {

namespace {

constexpr int64_t kBlockRows = 256;  // rows of A at a time
constexpr int64_t kPartRows = 8;

TensorView matrix(void* data, Dtype dtype, int64_t rows, int64_t cols) {
  return TensorView{data, dtype, 2, {rows, cols}};
}

// One of grams [heads, k, k], or of packed ones [heads, k (k + 1) / 2].
TensorView gram_of_head(const TensorView& gram, int64_t head) {
  TensorView one{nullptr, gram.dtype, gram.rank - 1, {gram.shape[1], gram.rank == 3 ? gram.shape[2] : 0}};
  one.data = gram.as<double>() + head * one.elements();
  return one;
}

Status check(const TensorView& q, const TensorView& keys, const TensorView& x, const AttentionShape& shape,
             int64_t first, const TensorView& gram) {
  LUTRA_TRY(require_rank(q, 2, "attended grams: q must have 2 dimensions"));
  LUTRA_TRY(require_rank(keys, 2, "attended grams: keys must have 2 dimensions"));
  LUTRA_TRY(require_rank(x, 2, "attended grams: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(gram, gram.rank == 2 ? 2 : 3, "attended grams: gram must have 2 or 3 dimensions"));
  for (const TensorView* operand : {&q, &keys, &x})
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "attended grams: q, keys and x must be f32"));
  if (shape.heads <= 0 || shape.kv_heads <= 0 || shape.heads % shape.kv_heads)
    return error(Code::kOption, "attended grams: heads must be a multiple of kv_heads", shape.heads, shape.kv_heads);
  if (shape.head_dim <= 0) return error(Code::kOption, "attended grams: head_dim must be positive", shape.head_dim, 1);
  if (shape.window < 0) return error(Code::kOption, "attended grams: window is negative", shape.window, 0);
  if (shape.start != 0) return error(Code::kOption, "attended grams: the sequence must begin here", shape.start, 0);
  int64_t width = 0, kv_width = 0;
  if (!checked_mul(shape.heads, shape.head_dim, &width) || !checked_mul(shape.kv_heads, shape.head_dim, &kv_width))
    return error(Code::kOption, "attended grams: heads times head_dim overflows", shape.heads, shape.head_dim);
  LUTRA_TRY(require_equal(q.shape[1], width, "attended grams: columns of q, against heads times head_dim"));
  LUTRA_TRY(require_equal(keys.shape[1], kv_width, "attended grams: columns of keys, against kv_heads times head_dim"));
  LUTRA_TRY(require_equal(x.shape[0], q.shape[0], "attended grams: rows of x, against rows of q"));
  if (keys.shape[0] < q.shape[0])
    return error(Code::kShape, "attended grams: a key is needed for every row of q", keys.shape[0], q.shape[0]);
  LUTRA_TRY(require_triangle(gram_of_head(gram, 0), x.shape[1], "attended grams: a gram, against columns of x"));
  if (first < 0 || first > shape.kv_heads - gram.shape[0])
    return error(Code::kOption, "attended grams: no such key-value heads", first, shape.kv_heads - gram.shape[0]);
  for (const TensorView* operand : {&q, &keys, &x})
    LUTRA_TRY(require_apart(gram, *operand, "attended grams: gram may not overlap an operand"));
  return ok_status();
}

// A X of one query head.
struct Mixer {
  const float* q;  // of this head, rows of q_stride
  const float* keys;
  const float* x;
  float* rows;   // [kBlockRows, n]: of A
  float* mixed;  // [n, k]
  int64_t n;
  int64_t k;
  int64_t q_stride;
  int64_t key_stride;
  int64_t head_dim;
  int64_t window;
  const AttentionKernels& attention = attention_kernels();
  const ActivationKernels& activation = activation_kernels();

  int64_t first_key(int64_t row) const { return window > 0 ? std::max<int64_t>(0, row + 1 - window) : 0; }

  // Row `row` of A, from key `base` to key `end`, into `line`; zero where the row does not look.
  void attend(int64_t row, int64_t base, int64_t end, float* line) const {
    const int64_t begin = first_key(row), count = row + 1 - begin;
    const float* query = q + row * q_stride;
    float* seen = line + begin - base;
    attention.scores(&query, 1, keys + begin * key_stride, key_stride, count, head_dim,
                     1.0f / std::sqrt(static_cast<float>(head_dim)), seen, count);
    const double sum = activation.exp_sum(seen, activation.max(seen, count), seen, count);
    activation.scale(seen, static_cast<float>(1.0 / sum), count);
    std::fill(line, seen, 0.0f);
    std::fill(seen + count, line + end - base, 0.0f);
  }

  Status run(Context& context) const {
    for (int64_t begin = 0; begin < n; begin += kBlockRows) {
      const int64_t end = std::min(n, begin + kBlockRows), base = first_key(begin), width = end - base;
      LUTRA_TRY(finished(context.parallel(ceil_div(end - begin, kPartRows), [&](int64_t part) {
        for (int64_t row = begin + part * kPartRows; row < std::min(end, begin + (part + 1) * kPartRows); ++row)
          attend(row, base, end, rows + (row - begin) * width);
      })));
      const RightOperand right{.data = x + base * k, .stride = k, .k_major = true};
      LUTRA_TRY(product(context, end - begin, k, width, rows, width, right, mixed + begin * k, k));
    }
    return ok_status();
  }
};

}  // namespace

Status accumulate_head_grams(Context& context, const TensorView& x, const TensorView& gram) {
  LUTRA_TRY(require_rank(x, 2, "head grams: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(gram, 3, "head grams: gram must have 3 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "head grams: x must be f32"));
  LUTRA_TRY(require_dtype(gram, Dtype::kF64, "head grams: gram must be f64"));
  const int64_t n = x.shape[0], width = x.shape[1], heads = gram.shape[0], d = gram.shape[1];
  LUTRA_TRY(require_equal(gram.shape[2], d, "head grams: columns of a gram, against its rows"));
  LUTRA_TRY(require_equal(width, heads * d, "head grams: columns of x, against those of the grams"));
  LUTRA_TRY(require_apart(gram, x, "head grams: gram may not overlap x"));
  const AlignedBuffer head(static_cast<size_t>(n * d) * sizeof(float));
  if (!head) return out_of_memory(n * d * static_cast<int64_t>(sizeof(float)));
  constexpr int64_t kRows = 256;
  for (int64_t h = 0; h < heads; ++h) {
    LUTRA_TRY(finished(context.parallel(ceil_div(n, kRows), [&](int64_t part) {
      for (int64_t t = part * kRows; t < std::min(n, (part + 1) * kRows); ++t)
        std::memcpy(head.as<float>() + t * d, x.as<float>() + t * width + h * d,
                    static_cast<size_t>(d) * sizeof(float));
    })));
    LUTRA_TRY(accumulate_gram(context, matrix(head.as<void>(), Dtype::kF32, n, d),
                              matrix(gram.as<double>() + h * d * d, Dtype::kF64, d, d)));
  }
  return ok_status();
}

Status accumulate_attended_grams(Context& context, const TensorView& q, const TensorView& keys, const TensorView& x,
                                 const AttentionShape& shape, int64_t first, const TensorView& gram) {
  LUTRA_TRY(check(q, keys, x, shape, first, gram));
  const int64_t n = x.shape[0], k = x.shape[1], repeats = shape.heads / shape.kv_heads;
  if (n == 0 || k == 0) return ok_status();
  // The products use the context's scratch: these live beside it.
  const AlignedBuffer rows(static_cast<size_t>(std::min(n, kBlockRows) * n) * sizeof(float));
  const AlignedBuffer mixed(static_cast<size_t>(n * k) * sizeof(float));
  if (!rows || !mixed) return out_of_memory(n * (k + kBlockRows) * static_cast<int64_t>(sizeof(float)));
  for (int64_t i = 0; i < gram.shape[0]; ++i)
    for (int64_t r = 0; r < repeats; ++r) {
      const int64_t kv_head = first + i;
      const Mixer mixer{q.as<float>() + (kv_head * repeats + r) * shape.head_dim,
                        keys.as<float>() + kv_head * shape.head_dim,
                        x.as<float>(),
                        rows.as<float>(),
                        mixed.as<float>(),
                        n,
                        k,
                        q.shape[1],
                        keys.shape[1],
                        shape.head_dim,
                        shape.window};
      LUTRA_TRY(mixer.run(context));
      LUTRA_TRY(accumulate_gram(context, matrix(mixed.as<void>(), Dtype::kF32, n, k), gram_of_head(gram, i)));
    }
  return ok_status();
}

}  // namespace lutra
