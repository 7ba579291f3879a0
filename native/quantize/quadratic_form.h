// How large a matrix is in the metric of a Hessian.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// x H x^T of every row x of x f32 [m,k], into values f64 [m]; H f64 [k,k] is symmetric. H is rounded to f32 panel by
// panel, products are fp32, their sums f64. For one shape and instruction set the bits do not depend on the lanes.
Status quadratic_form_rows(Context& context, const TensorView& x, const TensorView& hessian, const TensorView& values);

// Their sum, tr(x H x^T).
Status quadratic_form(Context& context, const TensorView& x, const TensorView& hessian, double* value);

// The same with a diagonal metric of its own for every row: the sum of weights[i,j] x[i,j]^2, f32 [m,k] both, in fp64.
Status weighted_squares(Context& context, const TensorView& x, const TensorView& weights, double* value);

}  // namespace lutra
