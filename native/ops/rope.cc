#include "kernels/rope/rope.h"

#include <algorithm>

#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

Status rope(Context& context, const TensorView& x, const TensorView& cos_sin, int64_t head_dim, int64_t start) {
  LUTRA_TRY(require_rank(x, 2, "rope: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(cos_sin, 2, "rope: cos_sin must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "rope: x must be f32"));
  LUTRA_TRY(require_dtype(cos_sin, Dtype::kF32, "rope: cos_sin must be f32"));
  if (head_dim <= 0 || head_dim % 2) return error(Code::kOption, "rope: head_dim must be positive and even", head_dim);
  const int64_t n = x.shape[0];
  const int64_t width = x.shape[1];
  if (width % head_dim) return error(Code::kShape, "rope: columns of x must be whole heads", width, head_dim);
  LUTRA_TRY(require_equal(cos_sin.shape[1], head_dim, "rope: columns of cos_sin, against head_dim"));
  LUTRA_TRY(require_apart(x, cos_sin, "rope: x may not overlap cos_sin"));
  if (start < 0) return error(Code::kOption, "rope: start is negative", start, 0);
  if (start > cos_sin.shape[0] - n)
    return error(Code::kOption, "rope: start and rows of x exceed the positions of cos_sin", start,
                 cos_sin.shape[0] - n);
  const RopeKernels& kernels = rope_kernels();
  const int64_t half = head_dim / 2;
  const int64_t part_rows = std::max<int64_t>(1, (int64_t{1} << 15) / std::max<int64_t>(1, width));
  return finished(context.parallel(ceil_div(n, part_rows), [&](int64_t part) {
    const int64_t end = std::min(n, (part + 1) * part_rows);
    for (int64_t t = part * part_rows; t < end; ++t) {
      const float* angles = cos_sin.as<float>() + (start + t) * head_dim;
      for (int64_t h = 0; h < width; h += head_dim)
        kernels.rotate(x.as<float>() + t * width + h, angles, angles + half, half);
    }
  }));
}

}  // namespace lutra
