// Attention, backwards, in two passes that compute the weights anew (the order of FlashAttention-2, arXiv 2307.08691):
// blocks of query rows give dq and each row's shift, sum and mean of dP; blocks of keys then gather dk and dv over the
// queries that see them, in ascending order, so that no two parts add to the same row.
#include <algorithm>
#include <cmath>

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "ops/backward.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kBlockRows = 4 * kAttentionRows;  // query rows of a part

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t count() const { return end - begin; }
};

// What the pass over keys must know of a query's softmax: P = exp(score - shift) * share, dS = P (dP - mean) * scale.
struct Softmax {
  float shift;
  float share;
  float mean;
};

struct Task {
  const float* q;
  const float* keys;
  const float* values;
  const float* dy;
  float* dq;
  float* dkeys;
  float* dvalues;
  AttentionShape shape;
  int64_t n;
  Softmax* softmaxes;  // [heads][n]
  const AttentionKernels& kernels = attention_kernels();
  const ActivationKernels& activation = activation_kernels();

  int64_t group() const { return shape.heads / shape.kv_heads; }
  int64_t stride() const { return shape.heads * shape.head_dim; }
  int64_t key_stride() const { return shape.kv_heads * shape.head_dim; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape.head_dim)); }
  Range keys_of(int64_t query) const {
    return {shape.window > 0 ? std::max<int64_t>(0, query + 1 - shape.window) : 0, query + 1};
  }
  Range queries_of(int64_t key) const { return {key, shape.window > 0 ? key + std::min(n - key, shape.window) : n}; }

  // Up to kAttentionRows queries of one head; `scores` holds two times as many lines of n.
  void query_rows(int64_t head, int64_t query, int64_t rows, float* scores) const {
    const int64_t kv = head / group() * shape.head_dim;
    const Range seen{keys_of(query).begin, keys_of(query + rows - 1).end};
    const float *queries[kAttentionRows], *gradients[kAttentionRows];
    float* out[kAttentionRows];
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (query + r) * stride() + head * shape.head_dim;
      queries[r] = q + at;
      gradients[r] = dy + at;
      out[r] = dq + at;
      std::fill_n(out[r], shape.head_dim, 0.0f);
    }
    float* weights = scores + kAttentionRows * n;
    kernels.scores(queries, rows, keys + seen.begin * key_stride() + kv, key_stride(), seen.count(), shape.head_dim,
                   scale(), scores, n);
    kernels.scores(gradients, rows, values + seen.begin * key_stride() + kv, key_stride(), seen.count(), shape.head_dim,
                   1.0f, weights, n);
    for (int64_t r = 0; r < rows; ++r) {
      const Range own = keys_of(query + r);
      softmaxes[head * n + query + r] =
          score_gradients(scores + r * n, weights + r * n, {own.begin - seen.begin, own.end - seen.begin}, seen);
    }
    kernels.mix(weights, n, rows, keys + seen.begin * key_stride() + kv, key_stride(), seen.count(), shape.head_dim,
                out);
  }

  // One row: dS over dP, zero for keys that the query does not see.
  Softmax score_gradients(float* scores, float* gradients, Range own, Range seen) const {
    const float shift = activation.max(scores + own.begin, own.count());
    const double sum = activation.exp_sum(scores + own.begin, shift, scores + own.begin, own.count());
    double mean = 0;
    for (int64_t j = own.begin; j < own.end; ++j) mean += static_cast<double>(scores[j]) * gradients[j];
    const Softmax softmax{shift, static_cast<float>(1.0 / sum), static_cast<float>(mean / sum)};
    std::fill(gradients, gradients + own.begin, 0.0f);
    for (int64_t j = own.begin; j < own.end; ++j)
      gradients[j] = scores[j] * softmax.share * (gradients[j] - softmax.mean) * scale();
    std::fill(gradients + own.end, gradients + seen.count(), 0.0f);
    return softmax;
  }

  // Up to kAttentionRows keys of one key-value head, over the heads that share them.
  void key_rows(int64_t kv_head, int64_t key, int64_t rows, float* weights) const {
    const Range seen{key, queries_of(key + rows - 1).end};
    const float *key_lines[kAttentionRows], *value_lines[kAttentionRows];
    float *dkey_lines[kAttentionRows], *dvalue_lines[kAttentionRows];
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (key + r) * key_stride() + kv_head * shape.head_dim;
      key_lines[r] = keys + at;
      value_lines[r] = values + at;
      dkey_lines[r] = dkeys + at;
      dvalue_lines[r] = dvalues + at;
      std::fill_n(dkey_lines[r], shape.head_dim, 0.0f);
      std::fill_n(dvalue_lines[r], shape.head_dim, 0.0f);
    }
    float* gradients = weights + kAttentionRows * n;
    for (int64_t head = kv_head * group(); head < (kv_head + 1) * group(); ++head) {
      const int64_t at = seen.begin * stride() + head * shape.head_dim;
      kernels.scores(key_lines, rows, q + at, stride(), seen.count(), shape.head_dim, scale(), weights, n);
      kernels.scores(value_lines, rows, dy + at, stride(), seen.count(), shape.head_dim, 1.0f, gradients, n);
      for (int64_t r = 0; r < rows; ++r)
        weigh_queries(head, queries_of(key + r), seen, weights + r * n, gradients + r * n);
      kernels.mix(weights, n, rows, dy + at, stride(), seen.count(), shape.head_dim, dvalue_lines);
      kernels.mix(gradients, n, rows, q + at, stride(), seen.count(), shape.head_dim, dkey_lines);
    }
  }

  // One key: P over its scores and dS over dP, zero for queries that do not see it.
  void weigh_queries(int64_t head, Range own, Range seen, float* weights, float* gradients) const {
    const Softmax* softmax = softmaxes + head * n;
    for (int64_t t = own.begin; t < own.end; ++t) weights[t - seen.begin] -= softmax[t].shift;
    float* line = weights + own.begin - seen.begin;
    activation.exp_sum(line, 0.0f, line, own.count());
    for (int64_t t = seen.begin; t < seen.end; ++t) {
      const bool sees = t >= own.begin && t < own.end;
      const float p = sees ? weights[t - seen.begin] * softmax[t].share : 0.0f;
      weights[t - seen.begin] = p;
      gradients[t - seen.begin] = sees ? p * (gradients[t - seen.begin] - softmax[t].mean) * scale() : 0.0f;
    }
  }
};

Status check(const TensorView& q, const TensorView& keys, const TensorView& values, const AttentionShape& shape,
             const TensorView& dy, const TensorView& dq, const TensorView& dkeys, const TensorView& dvalues) {
  for (const TensorView* operand : {&q, &keys, &values, &dy, &dq, &dkeys, &dvalues}) {
    LUTRA_TRY(require_rank(*operand, 2, "attention_backward: all operands have 2 dimensions"));
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "attention_backward: all operands must be f32"));
    LUTRA_TRY(
        require_equal(operand->shape[0], q.shape[0], "attention_backward: rows of an operand, against rows of q"));
  }
  int64_t width = 0;
  if (shape.heads <= 0 || shape.kv_heads <= 0 || shape.head_dim <= 0 || shape.heads % shape.kv_heads ||
      !checked_mul(shape.heads, shape.head_dim, &width))
    return error(Code::kOption, "attention_backward: heads must be a positive multiple of kv_heads", shape.heads,
                 shape.kv_heads);
  if (shape.window < 0) return error(Code::kOption, "attention_backward: window is negative", shape.window, 0);
  if (shape.start != 0) return error(Code::kOption, "attention_backward: a sequence begins at 0", shape.start, 0);
  LUTRA_TRY(require_equal(q.shape[1], width, "attention_backward: columns of q, against heads times head_dim"));
  LUTRA_TRY(require_equal(keys.shape[1], shape.kv_heads * shape.head_dim,
                          "attention_backward: columns of keys, against kv_heads times head_dim"));
  LUTRA_TRY(require_same_shape(keys, values, "attention_backward: shape of values, against shape of keys"));
  LUTRA_TRY(require_same_shape(q, dy, "attention_backward: shape of dy, against shape of q"));
  LUTRA_TRY(require_same_shape(q, dq, "attention_backward: shape of dq, against shape of q"));
  LUTRA_TRY(require_same_shape(keys, dkeys, "attention_backward: shape of dkeys, against shape of keys"));
  LUTRA_TRY(require_same_shape(keys, dvalues, "attention_backward: shape of dvalues, against shape of keys"));
  for (const TensorView* result : {&dq, &dkeys, &dvalues})
    for (const TensorView* operand : {&q, &keys, &values, &dy})
      LUTRA_TRY(require_apart(*result, *operand, "attention_backward: results may not overlap operands"));
  LUTRA_TRY(require_apart(dq, dkeys, "attention_backward: dq may not overlap dkeys"));
  LUTRA_TRY(require_apart(dq, dvalues, "attention_backward: dq may not overlap dvalues"));
  return require_apart(dkeys, dvalues, "attention_backward: dkeys may not overlap dvalues");
}

}  // namespace

Status attention_backward(Context& context, const TensorView& q, const TensorView& keys, const TensorView& values,
                          const AttentionShape& shape, const TensorView& dy, const TensorView& dq,
                          const TensorView& dkeys, const TensorView& dvalues) {
  LUTRA_TRY(check(q, keys, values, shape, dy, dq, dkeys, dvalues));
  const int64_t n = q.shape[0];
  if (n == 0) return ok_status();
  const size_t softmax_bytes = static_cast<size_t>(round_up(shape.heads * n, 16)) * sizeof(Softmax);
  const size_t slot_bytes = static_cast<size_t>(2 * kAttentionRows * n) * sizeof(float);
  const size_t bytes = softmax_bytes + LaneScratch::bytes(context, slot_bytes);
  auto* memory = static_cast<uint8_t*>(context.scratch(bytes));
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory + softmax_bytes, slot_bytes);
  const Task task{q.as<float>(),
                  keys.as<float>(),
                  values.as<float>(),
                  dy.as<float>(),
                  dq.as<float>(),
                  dkeys.as<float>(),
                  dvalues.as<float>(),
                  shape,
                  n,
                  reinterpret_cast<Softmax*>(memory)};
  const int64_t blocks = ceil_div(n, kBlockRows);
  const bool ran = context.parallel(blocks * shape.heads, [&](int64_t part) {
    const LaneScratch::Slot slot(lanes);
    // The longest rows first: the last part of a region should be a short one.
    const int64_t first = (blocks - 1 - part / shape.heads) * kBlockRows;
    for (int64_t t = first; t < std::min(n, first + kBlockRows); t += kAttentionRows)
      task.query_rows(part % shape.heads, t, std::min(kAttentionRows, n - t), slot.as<float>());
  });
  if (!ran) return finished(false);
  return finished(context.parallel(ceil_div(n, kAttentionRows) * shape.kv_heads, [&](int64_t part) {
    const LaneScratch::Slot slot(lanes);
    const int64_t key = part / shape.kv_heads * kAttentionRows;
    task.key_rows(part % shape.kv_heads, key, std::min(kAttentionRows, n - key), slot.as<float>());
  }));
}

}  // namespace lutra
