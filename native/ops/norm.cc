#include "kernels/norm/norm.h"

#include <algorithm>

#include "kernels/convert/convert.h"
#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

Status rms_norm(Context& context, const TensorView& x, const TensorView& weight, float epsilon, const TensorView& y) {
  LUTRA_TRY(require_rank(x, 2, "rms_norm: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(weight, 1, "rms_norm: weight must have 1 dimension"));
  LUTRA_TRY(require_rank(y, 2, "rms_norm: y must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "rms_norm: x must be f32"));
  LUTRA_TRY(require_weight_dtype(weight, "rms_norm: weight must be f32, f16 or bf16"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "rms_norm: y must be f32"));
  LUTRA_TRY(require_same_shape(x, y, "rms_norm: shape of y, against shape of x"));
  LUTRA_TRY(require_same_or_apart(y, x, "rms_norm: y may be x, or not overlap it"));
  LUTRA_TRY(require_apart(y, weight, "rms_norm: y may not overlap weight"));
  const int64_t n = x.shape[0];
  const int64_t d = x.shape[1];
  LUTRA_TRY(require_equal(weight.shape[0], d, "rms_norm: elements of weight, against columns of x"));
  if (!(epsilon >= 0)) return error(Code::kOption, "rms_norm: epsilon is negative or NaN");
  const float* scales = weight.as<float>();
  if (weight.dtype != Dtype::kF32) {
    const size_t bytes = static_cast<size_t>(d) * sizeof(float);
    auto* widened = static_cast<float*>(context.scratch(bytes));
    if (!widened) return out_of_memory(static_cast<int64_t>(bytes));
    const auto widen = weight.dtype == Dtype::kF16 ? convert_kernels().f16_to_f32 : convert_kernels().bf16_to_f32;
    widen(weight.as<uint16_t>(), widened, d);
    scales = widened;
  }
  const NormKernels& kernels = norm_kernels();
  const int64_t part_rows = std::max<int64_t>(1, (int64_t{1} << 15) / std::max<int64_t>(1, d));
  return finished(context.parallel(ceil_div(n, part_rows), [&](int64_t part) {
    const int64_t end = std::min(n, (part + 1) * part_rows);
    for (int64_t t = part * part_rows; t < end; ++t)
      kernels.rms_norm(x.as<float>() + t * d, scales, epsilon, y.as<float>() + t * d, d);
  }));
}

}  // namespace lutra
