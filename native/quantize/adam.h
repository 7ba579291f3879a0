// Adam (arXiv 1412.6980) on a tensor of parameters.
#pragma once

#include <cmath>

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

// Step number `step`, from 1, of one number: value -= learning_rate * m / (sqrt(v) + epsilon), with the running means m
// and v of the slope and its square, both divided by what they lack of a whole mean. Arithmetic in fp64.
class AdamUpdate {
 public:
  AdamUpdate(const AdamOptions& options, int64_t step)
      : options_(options),
        whole1_(1 - std::pow(options.beta1, static_cast<double>(step))),
        whole2_(1 - std::pow(options.beta2, static_cast<double>(step))) {}

  void apply(double gradient, float* value, float* first, float* second) const {
    const double slope = gradient + options_.weight_decay * *value;
    const double m = options_.beta1 * *first + (1 - options_.beta1) * slope;
    const double v = options_.beta2 * *second + (1 - options_.beta2) * slope * slope;
    *first = static_cast<float>(m);
    *second = static_cast<float>(v);
    *value -= static_cast<float>(options_.learning_rate * (m / whole1_) / (std::sqrt(v / whole2_) + options_.epsilon));
  }

 private:
  AdamOptions options_;
  double whole1_, whole2_;
};

// That step of every parameter. parameter and gradient are f32 of one shape, moments f32 [2, elements], zero before the
// first step.
Status adam_step(Context& context, const AdamOptions& options, int64_t step, const TensorView& gradient,
                 const TensorView& parameter, const TensorView& moments);

}  // namespace lutra
