// How large the elements of a matrix are.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// max |x| over all elements of x f32 [m,k], finite.
Status largest_magnitude(Context& context, const TensorView& x, double* largest);

// sum of x * x over all elements of x f32 [m,k], in f64, row by row: the same bits for every number of lanes.
Status sum_of_squares(Context& context, const TensorView& x, double* sum);

// sum of (a - b)^2 over all elements of a and b f32 [m,k], in the same way.
Status squared_distance(Context& context, const TensorView& a, const TensorView& b, double* sum);

}  // namespace lutra
