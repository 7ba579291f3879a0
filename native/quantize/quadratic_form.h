// How far quantized weights are from their originals, plainly and in the metric of a Hessian.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// difference[m,k] = w - scale * (code - zero), the product rounded to f32 as `dequantize` rounds it.
// w and difference f32 [m,k], codes u8 [m,k], scales and zeros f32 [m, ceil(k / group_size)]. difference may be w.
Status residual(Context& context, const TensorView& w, const TensorView& codes, const TensorView& scales,
                const TensorView& zeros, int64_t group_size, const TensorView& difference);

// tr(x H x^T) for x f32 [m,k] and a symmetric H f64 [k,k]: H is rounded to f32 panel by panel, products are fp32, their
// sums f64. For one shape and instruction set the bits do not depend on the number of lanes.
Status quadratic_form(Context& context, const TensorView& x, const TensorView& hessian, double* value);

}  // namespace lutra
