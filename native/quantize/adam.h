// Adam (arXiv 1412.6980) on a tensor of parameters.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

struct AdamOptions {
  double learning_rate = 1e-5;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double epsilon = 2e-5;
  double weight_decay = 1e-6;  // times the parameter, added to its gradient
};

// Step number `step`, from 1: parameter -= learning_rate * m / (sqrt(v) + epsilon), with m and v the running means of
// the gradient and its square, both divided by what they lack of a whole mean. parameter and gradient are f32 of one
// shape, moments f32 [2, elements], zero before the first step. Arithmetic in fp64.
Status adam_step(Context& context, const AdamOptions& options, int64_t step, const TensorView& gradient,
                 const TensorView& parameter, const TensorView& moments);

}  // namespace lutra
