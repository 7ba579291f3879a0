// FBQuant (arXiv 2501.16385): a low-rank pair whose quantizer sees what the pair leaves of the weights,
//
//   W_F = Q(W - b a) + b a,   L(a, b) = tr(E H E^T),   E = W_F - W = Q(U) - U,   U = W - b a.
//
// Q rounds to nearest on a grid that spans U, so |E| <= scale / 2 everywhere, whatever the pair is. Q is piecewise
// constant: with the codes and the grid of the moment held, dL/db = G a^T and dL/da = b^T G, G = 2 E H. (A quantizer
// that passed gradients on would cancel the pair's own: they would be zero.) Adam follows these, the grid is fitted
// anew in every step, and the iterate of least loss is the answer.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/rtn.h"

namespace lutra {

struct FbquantOptions {
  GridOptions grid;             // without search
  Dtype storage = Dtype::kF16;  // of the pair: f16, bf16 or i8
  int64_t steps = 0;
  // Length of Adam's first steps, in units of the root mean square that a balanced pair for the error of rounding W
  // has; falls to zero along half a cosine.
  double rate = 0.0;
  bool random = false;  // start from b = 0 and a random a of that size instead of the pair handed over
};

struct FbquantResult {
  double start = 0.0;     // loss of the first pair
  double best = 0.0;      // loss of the answer
  int64_t best_step = 0;  // steps before it
  int64_t steps = 0;      // steps taken: fewer where one led to numbers that the storage type does not have
};

// w f32 [m,k], metric f64 [k,k]; b f32 [m,r] and a f32 [r,k]: the first pair, and the best. Every loss is that of the
// pair as `storage` holds it, so what round_rows makes of the answer has the loss `best`.
Status fbquant_descend(Context& context, const FbquantOptions& options, const TensorView& w, const TensorView& metric,
                       const TensorView& b, const TensorView& a, FbquantResult* result);

// The loss of a pair, which is taken as it is, and its gradients b_gradient f32 [m,r] and a_gradient f32 [r,k].
Status fbquant_gradient(Context& context, const GridOptions& grid, const TensorView& w, const TensorView& metric,
                        const TensorView& b, const TensorView& a, double* loss, const TensorView& b_gradient,
                        const TensorView& a_gradient);

}  // namespace lutra
