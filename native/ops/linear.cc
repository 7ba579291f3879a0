#include "ops/linear.h"

#include <algorithm>

#include "kernels/activation/activation.h"
#include "ops/operand.h"
#include "ops/product.h"

namespace lutra {

Status linear(Context& context, const TensorView& x, const TensorView& weight, const TensorView& y,
              bool batch_invariant) {
  LUTRA_TRY(require_rank(x, 2, "linear: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(weight, 2, "linear: weight must have 2 dimensions"));
  LUTRA_TRY(require_rank(y, 2, "linear: y must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "linear: x must be f32"));
  LUTRA_TRY(require_weight_dtype(weight, "linear: weight must be f32, f16 or bf16"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "linear: y must be f32"));
  LUTRA_TRY(require_equal(weight.shape[1], x.shape[1], "linear: columns of weight, against columns of x"));
  LUTRA_TRY(require_equal(y.shape[0], x.shape[0], "linear: rows of y, against rows of x"));
  LUTRA_TRY(require_equal(y.shape[1], weight.shape[0], "linear: columns of y, against rows of weight"));
  LUTRA_TRY(require_apart(y, x, "linear: y may not overlap x"));
  LUTRA_TRY(require_apart(y, weight, "linear: y may not overlap weight"));
  const int64_t k = x.shape[1];
  const RightOperand right{.data = weight.data, .dtype = weight.dtype, .stride = k};
  return product(context, x.shape[0], weight.shape[0], k, x.as<float>(), k, right, y.as<float>(), y.shape[1],
                 batch_invariant);
}

Status add_bias(Context& context, const TensorView& y, const TensorView& bias) {
  LUTRA_TRY(require_rank(y, 2, "add_bias: y must have 2 dimensions"));
  LUTRA_TRY(require_rank(bias, 1, "add_bias: bias must have 1 dimension"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "add_bias: y must be f32"));
  LUTRA_TRY(require_dtype(bias, Dtype::kF32, "add_bias: bias must be f32"));
  LUTRA_TRY(require_equal(bias.shape[0], y.shape[1], "add_bias: elements of bias, against columns of y"));
  LUTRA_TRY(require_apart(y, bias, "add_bias: y may not overlap bias"));
  const ActivationKernels& kernels = activation_kernels();
  const int64_t m = y.shape[1];
  const int64_t part_rows = std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(1, m));
  return finished(context.parallel(ceil_div(y.shape[0], part_rows), [&](int64_t part) {
    const int64_t end = std::min(y.shape[0], (part + 1) * part_rows);
    for (int64_t t = part * part_rows; t < end; ++t) kernels.add(bias.as<float>(), y.as<float>() + t * m, m);
  }));
}

}  // namespace lutra
