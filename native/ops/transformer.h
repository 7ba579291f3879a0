// The remaining operators of a Llama step. All activations are f32; n is the number of tokens.
// A result that shares memory with an operand is kOption, unless it says that y may be x.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// y[n,d] = table[ids[n], :]; table f32, f16 or bf16, ids i32 (refused outside the table).
Status embedding(Context& context, const TensorView& table, const TensorView& ids, const TensorView& y);

// y = x / sqrt(mean(x^2) + epsilon) * weight[d], row by row. y may be x. weight f32, f16 or bf16.
Status rms_norm(Context& context, const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y);

// Rotates x[n, heads * head_dim] in place, half-split layout: pair (i, i + head_dim / 2) of row t turns by the angle
// of position `start + t`. cos_sin f32 [positions, head_dim]: cosines of the head_dim / 2 angles, then their sines.
Status rope(Context& context, const TensorView& x, const TensorView& cos_sin, int64_t head_dim, int64_t start);

// Copies rows x[n, width] to cache[start .. start + n, width].
Status cache_append(Context& context, const TensorView& x, const TensorView& cache, int64_t start);

struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t start = 0;   // position of the first query row; key rows 0 .. start + n - 1 are valid
  int64_t window = 0;  // sliding window: a query sees the last `window` positions, itself included; 0 means all
};
// Causal grouped-query attention. q[n, heads * head_dim], keys and values [capacity, kv_heads * head_dim],
// y like q. Scores are scaled by 1 / sqrt(head_dim); the softmax subtracts the row maximum.
Status attention(Context& context, const TensorView& q, const TensorView& keys, const TensorView& values,
                 const AttentionShape& shape, const TensorView& y);

// y = silu(gate) * up, elementwise; y may be gate or up.
Status swiglu(Context& context, const TensorView& gate, const TensorView& up, const TensorView& y);

// y += x, elementwise; y may be x.
Status add(Context& context, const TensorView& x, const TensorView& y);

// y = softmax(x) over the last dimension, with the row maximum subtracted. y may be x.
Status softmax(Context& context, const TensorView& x, const TensorView& y);

// Per row t of logits[n, vocab]: loss[t] = log sum exp(logits[t]) - logits[t, target[t]] in fp64 (f64 [n]), and
// top[t] = the index of the largest logit, the lowest on ties (i32 [n]). target i32 [n]; a negative one gives loss 0.
Status cross_entropy(Context& context, const TensorView& logits, const TensorView& target, const TensorView& loss,
                     const TensorView& top);

// index[t] (i32 [n]) = that of the largest of x[n, cols], the lowest on ties; a NaN is larger than nothing, and nothing
// is larger than a NaN at the row's start. value[t] (f32 [n]) = that number, or NaN where the row has any.
Status arg_max(Context& context, const TensorView& x, const TensorView& index, const TensorView& value);

// divergence[t] = sum_v p_v (log p_v - log q_v), p = softmax(reference[t]), q = softmax(logits[t]); f64 [n], in nats.
Status kl_divergence(Context& context, const TensorView& reference, const TensorView& logits,
                     const TensorView& divergence);

// Element conversion between f32, f16, bf16 and f64, round to nearest even. Shapes are equal.
Status convert(Context& context, const TensorView& x, const TensorView& y);

// index = the first element that is NaN or infinite, or -1. x is f32, f16, bf16 or f64.
Status find_non_finite(Context& context, const TensorView& x, int64_t* index);

}  // namespace lutra
