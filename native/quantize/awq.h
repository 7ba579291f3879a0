// The passes of AWQ (Lin et al., arXiv 2306.00978): what rounding makes of weights whose columns are scaled, how large
// the inputs of each column are, and the clipping of weights that cost less than the finer grid gains.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/rtn.h"

namespace lutra {

// y = Q(w diag(s)) diag(s)^-1 f32 [m,k]: round to nearest on grids fitted to the scaled weights. w f32 [m,k] finite; s
// f64 [k] finite and positive. kOption, with their number in `found`, where scales exceed their storage type. y may be
// w.
Status round_scaled(Context& context, const GridOptions& options, const TensorView& w, const TensorView& s,
                    const TensorView& y);

// y = w clamped, group by group, to +-p max|w|, p = 1, 0.95 .. 0.55: the p of least d H d^T, where d is what rounding
// the clamped weights changes in the group's weights and H its block of the Hessian f64 [k,k]; the largest of equals.
// *clipped receives the number of groups with p < 1. y may be w.
Status clip_to_hessian(Context& context, const GridOptions& options, const TensorView& w, const TensorView& hessian,
                       const TensorView& y, int64_t* clipped_groups);

// mean f64 [k] of |x| over the rows of x f32 [tokens, k], summed in order.
Status mean_magnitudes(Context& context, const TensorView& x, const TensorView& mean);

}  // namespace lutra
