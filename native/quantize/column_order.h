// Columns in another order: what act-order needs around the column pass, and the way a Hessian is made ready for it.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// Hessians are f64 [k,k] or packed triangles (ops/matrix64.h).

// diagonal f64 [k] of a Hessian.
Status hessian_diagonal(Context& context, const TensorView& hessian, const TensorView& diagonal);

// prepared[i,j] = hessian[order[i], order[j]], plus `damping` on the diagonal; not the same memory.
// order i32 [k] names every column once. A dead column (zero on the diagonal: its input was never anything but zero)
// gets one there instead, so that it factors and stays uncoupled from the others.
Status prepare_hessian(Context& context, const TensorView& hessian, const TensorView& order, double damping,
                       const TensorView& prepared);

// y[r,j] = x[r, index[j]], or zero where index[j] is -1. x [m,k] and y [m,n] are both f32 or both u8; index i32 [n].
Status gather_columns(Context& context, const TensorView& x, const TensorView& index, const TensorView& y);

}  // namespace lutra
