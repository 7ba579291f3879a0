#include "quantize/adam.h"

#include <algorithm>

#include "ops/operand.h"

namespace lutra {

Status adam_step(Context& context, const AdamOptions& options, int64_t step, const TensorView& gradient,
                 const TensorView& parameter, const TensorView& moments) {
  LUTRA_TRY(require_rank(parameter, parameter.rank, "adam: the parameter has a bad dimension"));
  LUTRA_TRY(require_rank(gradient, parameter.rank, "adam: rank of the gradient, against that of the parameter"));
  LUTRA_TRY(require_rank(moments, 2, "adam: moments must have 2 dimensions"));
  for (const TensorView* operand : {&parameter, &gradient, &moments})
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "adam: all operands must be f32"));
  LUTRA_TRY(require_same_shape(parameter, gradient, "adam: shape of the gradient, against that of the parameter"));
  const int64_t count = parameter.elements();
  LUTRA_TRY(require_equal(moments.shape[0], 2, "adam: rows of moments"));
  LUTRA_TRY(require_equal(moments.shape[1], count, "adam: columns of moments, against elements of the parameter"));
  LUTRA_TRY(require_apart(parameter, gradient, "adam: the parameter may not overlap its gradient"));
  LUTRA_TRY(require_apart(moments, gradient, "adam: moments may not overlap the gradient"));
  LUTRA_TRY(require_apart(moments, parameter, "adam: moments may not overlap the parameter"));
  const auto below_one = [](double x) { return x >= 0 && x < 1; };
  if (!(options.learning_rate >= 0 && options.epsilon > 0 && options.weight_decay >= 0))
    return error(Code::kOption, "adam: epsilon must be positive, learning rate and weight decay may not be negative");
  if (!below_one(options.beta1) || !below_one(options.beta2) || step < 1)
    return error(Code::kOption, "adam: betas in [0, 1) and a step from 1 are needed", step, 1);

  const AdamUpdate update(options, step);
  float* const first = moments.as<float>();
  float* const second = first + count;
  constexpr int64_t kPartElements = int64_t{1} << 14;
  return finished(context.parallel(ceil_div(count, kPartElements), [&](int64_t part) {
    for (int64_t i = part * kPartElements; i < std::min(count, (part + 1) * kPartElements); ++i)
      update.apply(gradient.as<float>()[i], parameter.as<float>() + i, first + i, second + i);
  }));
}

}  // namespace lutra
