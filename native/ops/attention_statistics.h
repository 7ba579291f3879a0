// Sums over tokens that calibration takes inside attention: what BoA (arXiv 2406.13474) weighs errors of the query, key
// and value projections by.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "ops/transformer.h"

namespace lutra {

// gram f64 [heads, d, d] += x_h^T x_h, x_h the columns h d .. (h + 1) d of x f32 [n, heads d].
Status accumulate_head_grams(Context& context, const TensorView& x, const TensorView& gram);

// gram f64 [count, k, k], or packed triangles [count, k (k + 1) / 2]: that of key-value head first + i += the sum over
// its query heads of (A X)^T (A X), where X = x f32 [n, k] and A [n, n] is the head's causal attention over the n
// tokens, softmax(q K^T / sqrt(head_dim)) within the window. q f32 [n, heads head_dim] and keys f32 [capacity >= n,
// kv_heads head_dim] have their positions' rotation; the tokens are the first of the sequence (shape.start 0). Holds
// one A X and some rows of A.
Status accumulate_attended_grams(Context& context, const TensorView& q, const TensorView& keys, const TensorView& x,
                                 const AttentionShape& shape, int64_t first, const TensorView& gram);

}  // namespace lutra
