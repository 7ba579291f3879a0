// Which of its two neighbours every weight is rounded to, learned against the layer's two-sided error: aespa (arXiv
// 2402.08958) with AdaRound's variables (arXiv 2004.10568). A weight that lies at c codes stands for
// scale * (clip(floor(c) + h(v)) - zero) with h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1), and Adam minimises
//     sum over heads of tr(G E H E^T) + regularization * sum(1 - |2 h - 1|^beta),    E = that - W,
// whose gradient needs the Hessians alone, whatever the number of tokens.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

struct RoundingOptions {
  int bits = 4;
  int64_t group_size = 128;
  int64_t iterations = 2000;
  double learning_rate = 0.015;
  double regularization = 1.0;  // in units of the error of one code in a weight of mean diagonal
  double warm_up = 0.2;         // share of the iterations without the regulariser
  double beta_first = 20.0;     // beta falls linearly from here
  double beta_last = 2.0;       // to here
};

// w f32 [m,k]; base f32 [m,k], what the codes were rounded from, compensated for other errors; scales and zeros f32
// [m, groups]; hessian f64 [k,k]; row_hessians f64 [heads, d, d] with m = heads d, or no memory: every row by itself,
// layer-wise AdaRound. codes u8 [m,k]: of the base, replaced head by head where the learned ones have the smaller error
// and never further than one code away. kNonFinite where an operand is not finite.
Status learn_rounding(Context& context, const RoundingOptions& options, const TensorView& w, const TensorView& base,
                      const TensorView& scales, const TensorView& zeros, const TensorView& hessian,
                      const TensorView& row_hessians, const TensorView& codes);

// d(loss) / d(v) of one weight, given the derivative of the first term by its value. Exposed for its test.
double rounding_gradient(double v, double by_value, double scale, bool inside, double regularization, double beta);
// The share of a code that v adds.
double rounded_share(double v);

}  // namespace lutra
