// How large a matrix is in a metric of two sides.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// The sum over heads of tr(G_h x_h H x_h^T), with row Hessians G f64 [heads, d, d], symmetric, x_h the rows h d ..
// (h + 1) d of x f32 [heads d, k] and H f64 [k,k]: what BoA (arXiv 2406.13474) makes small. Both Hessians are rounded
// to f32, products are fp32, their sums f64. For one shape and instruction set the bits do not depend on the number of
// lanes.
Status quadratic_form_of_heads(Context& context, const TensorView& x, const TensorView& hessian,
                               const TensorView& row_hessians, double* value);

}  // namespace lutra
