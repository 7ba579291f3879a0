// Matrix products with unquantized weights, and the Gram matrix that calibration accumulates.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// y[n,m] = x[n,k] * W[m,k]^T. x and y are f32; W is f32, f16 or bf16 and is read in place.
// fp32 accumulation in an order that depends on the shape and the instruction set alone, and with `batch_invariant` not
// on n: a row has the same bits whichever rows are computed with it.
Status linear(Context& context, const TensorView& x, const TensorView& weight, const TensorView& y,
              bool batch_invariant = false);

// y[n,m] += bias[m], both f32.
Status add_bias(Context& context, const TensorView& y, const TensorView& bias);

// gram[k,k] += x[n,k]^T x[n,k]: x f32, gram f64 and symmetric, both triangles are written; or its packed triangle
// (matrix64.h). Products in fp32 over at most 256 rows of x, their sums in fp64. A cancelled call leaves gram partly
// added to.
Status accumulate_gram(Context& context, const TensorView& x, const TensorView& gram);

}  // namespace lutra
