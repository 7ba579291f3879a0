#include "ops/backward.h"
#include "ops/operand.h"
#include "ops/product.h"

namespace lutra {

Status linear_backward_input(Context& context, const TensorView& dy, const TensorView& weight, const TensorView& dx) {
  LUTRA_TRY(require_rank(dy, 2, "linear_backward_input: dy must have 2 dimensions"));
  LUTRA_TRY(require_rank(weight, 2, "linear_backward_input: weight must have 2 dimensions"));
  LUTRA_TRY(require_rank(dx, 2, "linear_backward_input: dx must have 2 dimensions"));
  LUTRA_TRY(require_dtype(dy, Dtype::kF32, "linear_backward_input: dy must be f32"));
  LUTRA_TRY(require_dtype(weight, Dtype::kF32, "linear_backward_input: weight must be f32"));
  LUTRA_TRY(require_dtype(dx, Dtype::kF32, "linear_backward_input: dx must be f32"));
  const int64_t n = dy.shape[0], m = weight.shape[0], k = weight.shape[1];
  LUTRA_TRY(require_equal(dy.shape[1], m, "linear_backward_input: columns of dy, against rows of weight"));
  LUTRA_TRY(require_equal(dx.shape[0], n, "linear_backward_input: rows of dx, against rows of dy"));
  LUTRA_TRY(require_equal(dx.shape[1], k, "linear_backward_input: columns of dx, against columns of weight"));
  LUTRA_TRY(require_apart(dx, dy, "linear_backward_input: dx may not overlap dy"));
  LUTRA_TRY(require_apart(dx, weight, "linear_backward_input: dx may not overlap weight"));
  const RightOperand right{.data = weight.data, .stride = k, .k_major = true};
  return product(context, n, k, m, dy.as<float>(), m, right, dx.as<float>(), k);
}

Status linear_backward_weight(Context& context, const TensorView& dy, const TensorView& x, const TensorView& dweight) {
  LUTRA_TRY(require_rank(dy, 2, "linear_backward_weight: dy must have 2 dimensions"));
  LUTRA_TRY(require_rank(x, 2, "linear_backward_weight: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(dweight, 2, "linear_backward_weight: dweight must have 2 dimensions"));
  LUTRA_TRY(require_dtype(dy, Dtype::kF32, "linear_backward_weight: dy must be f32"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "linear_backward_weight: x must be f32"));
  LUTRA_TRY(require_dtype(dweight, Dtype::kF32, "linear_backward_weight: dweight must be f32"));
  const int64_t n = dy.shape[0], m = dy.shape[1], k = x.shape[1];
  LUTRA_TRY(require_equal(x.shape[0], n, "linear_backward_weight: rows of x, against rows of dy"));
  LUTRA_TRY(require_equal(dweight.shape[0], m, "linear_backward_weight: rows of dweight, against columns of dy"));
  LUTRA_TRY(require_equal(dweight.shape[1], k, "linear_backward_weight: columns of dweight, against columns of x"));
  LUTRA_TRY(require_apart(dweight, dy, "linear_backward_weight: dweight may not overlap dy"));
  LUTRA_TRY(require_apart(dweight, x, "linear_backward_weight: dweight may not overlap x"));
  return product_of_columns(context, m, k, n, dy.as<float>(), m, x.as<float>(), k, dweight.as<float>(), k);
}

}  // namespace lutra
