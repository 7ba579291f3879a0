// How large a matrix is in the metric of a Hessian.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// tr(x H x^T) for x f32 [m,k] and a symmetric H f64 [k,k]: H is rounded to f32 panel by panel, products are fp32, their
// sums f64. For one shape and instruction set the bits do not depend on the number of lanes.
Status quadratic_form(Context& context, const TensorView& x, const TensorView& hessian, double* value);

}  // namespace lutra
