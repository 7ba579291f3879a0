// The reverse of the operators of a block. For a result y of x and a loss L, dy is dL/dy, of y's shape, and dx what
// follows for x. Everything is f32, n is the number of tokens, and a sequence begins at position 0. Sums over tokens
// run in an order that depends on shape and instruction set alone. A result that shares memory with an operand is
// kOption, unless it says that it may be one.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "ops/transformer.h"

namespace lutra {

// Of y = x W^T: dx[n,k] = dy[n,m] W[m,k].
Status linear_backward_input(Context& context, const TensorView& dy, const TensorView& weight, const TensorView& dx);
// dweight[m,k] = dy[n,m]^T x[n,k].
Status linear_backward_weight(Context& context, const TensorView& dy, const TensorView& x, const TensorView& dweight);

// Of y = x r weight, r = 1 / sqrt(mean(x^2) + epsilon): dx = (g - x r mean(g x r)) r with g = dy weight. dx may be dy.
Status rms_norm_backward_input(Context& context, const TensorView& x, const TensorView& weight, float epsilon,
                               const TensorView& dy, const TensorView& dx);
// dweight[d] = sum over tokens of dy x r, summed in fp64.
Status rms_norm_backward_weight(Context& context, const TensorView& x, float epsilon, const TensorView& dy,
                                const TensorView& dweight);

// Turns dy[n, heads * head_dim] in place by minus the angles of rope.
Status rope_backward(Context& context, const TensorView& dy, const TensorView& cos_sin, int64_t head_dim);

// Of attention() over one whole sequence: q, dy and dq [n, heads * head_dim], keys, values and their gradients
// [n, kv_heads * head_dim]; shape.start is 0. Weights are computed anew: scratch grows with n, not with its square.
Status attention_backward(Context& context, const TensorView& q, const TensorView& keys, const TensorView& values,
                          const AttentionShape& shape, const TensorView& dy, const TensorView& dq,
                          const TensorView& dkeys, const TensorView& dvalues);

// Of y = silu(gate) up, elementwise; dgate may be dy.
Status swiglu_backward(Context& context, const TensorView& gate, const TensorView& up, const TensorView& dy,
                       const TensorView& dgate, const TensorView& dup);

// Of the sum over tokens of cross_entropy's losses: dlogits[t] = softmax(logits[t]) - onehot(target[t]), and zeros
// where target[t] is negative. dlogits may be logits.
Status cross_entropy_backward(Context& context, const TensorView& logits, const TensorView& target,
                              const TensorView& dlogits);

// sum += x x, elementwise: the diagonal of a Fisher matrix, gradient by gradient.
Status accumulate_squares(Context& context, const TensorView& x, const TensorView& sum);

// The loss that a block is tuned by and its derivative: loss[t] = mean over channels of (y - target)^2, f64 [n], and
// dy = 2 (y - target) / (n d), of the mean over tokens.
Status squared_error(Context& context, const TensorView& y, const TensorView& target, const TensorView& loss,
                     const TensorView& dy);

}  // namespace lutra
