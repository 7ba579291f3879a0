// Scales fitted again to codes that stay: one exact step of coordinate descent for every group of every row, TurboBoA's
// refinement (arXiv 2602.04929), here for groups of columns too.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// Lowers the sum over heads of tr(G D H D^T), D = W - Q, by scales f32 [m, groups] in place. w f32 [m,k], codes u8
// [m,k], zeros f32 [m, groups], hessian f64 [k,k]; row_hessians f64 [heads, d, d] with m = heads d, or no memory: every
// row by itself then. The best scale of a group, all others given, is rounded to `scale_dtype` first and kept only
// where it is positive and still lowers the form, which is therefore never larger after than before.
Status refine_scales(Context& context, int64_t group_size, Dtype scale_dtype, const TensorView& w,
                     const TensorView& codes, const TensorView& hessian, const TensorView& row_hessians,
                     const TensorView& scales, const TensorView& zeros);

}  // namespace lutra
