#include "kernels/activation/activation.h"

#include <algorithm>

#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

constexpr int64_t kPartElements = int64_t{1} << 15;

// Runs body(first element, count) over pieces of `elements`.
template <typename Body>
Status elementwise(Context& context, int64_t elements, Body&& body) {
  return finished(context.parallel(ceil_div(elements, kPartElements), [&](int64_t part) {
    const int64_t first = part * kPartElements;
    body(first, std::min(kPartElements, elements - first));
  }));
}

}  // namespace

Status swiglu(Context& context, const TensorView& gate, const TensorView& up, const TensorView& y) {
  LUTRA_TRY(require_rank(gate, gate.rank, "swiglu: gate has a bad dimension"));
  LUTRA_TRY(require_rank(up, gate.rank, "swiglu: rank of up, against rank of gate"));
  LUTRA_TRY(require_rank(y, gate.rank, "swiglu: rank of y, against rank of gate"));
  LUTRA_TRY(require_dtype(gate, Dtype::kF32, "swiglu: gate must be f32"));
  LUTRA_TRY(require_dtype(up, Dtype::kF32, "swiglu: up must be f32"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "swiglu: y must be f32"));
  LUTRA_TRY(require_same_shape(gate, up, "swiglu: shape of up, against shape of gate"));
  LUTRA_TRY(require_same_shape(gate, y, "swiglu: shape of y, against shape of gate"));
  LUTRA_TRY(require_same_or_apart(y, gate, "swiglu: y may be gate, or not overlap it"));
  LUTRA_TRY(require_same_or_apart(y, up, "swiglu: y may be up, or not overlap it"));
  const ActivationKernels& kernels = activation_kernels();
  return elementwise(context, gate.elements(), [&](int64_t first, int64_t count) {
    kernels.swiglu(gate.as<float>() + first, up.as<float>() + first, y.as<float>() + first, count);
  });
}

Status add(Context& context, const TensorView& x, const TensorView& y) {
  LUTRA_TRY(require_rank(x, x.rank, "add: x has a bad dimension"));
  LUTRA_TRY(require_rank(y, x.rank, "add: rank of y, against rank of x"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "add: x must be f32"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "add: y must be f32"));
  LUTRA_TRY(require_same_shape(x, y, "add: shape of y, against shape of x"));
  LUTRA_TRY(require_same_or_apart(y, x, "add: y may be x, or not overlap it"));
  const ActivationKernels& kernels = activation_kernels();
  return elementwise(context, x.elements(), [&](int64_t first, int64_t count) {
    kernels.add(x.as<float>() + first, y.as<float>() + first, count);
  });
}

Status softmax(Context& context, const TensorView& x, const TensorView& y) {
  if (x.rank < 1) return error(Code::kShape, "softmax: x must have a dimension", x.rank, 1);
  LUTRA_TRY(require_rank(x, x.rank, "softmax: x has a bad dimension"));
  LUTRA_TRY(require_rank(y, x.rank, "softmax: rank of y, against rank of x"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "softmax: x must be f32"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "softmax: y must be f32"));
  LUTRA_TRY(require_same_shape(x, y, "softmax: shape of y, against shape of x"));
  LUTRA_TRY(require_same_or_apart(y, x, "softmax: y may be x, or not overlap it"));
  const int64_t d = x.cols();
  if (x.elements() == 0) return ok_status();
  const ActivationKernels& kernels = activation_kernels();
  const int64_t part_rows = std::max<int64_t>(1, kPartElements / d);
  return finished(context.parallel(ceil_div(x.rows(), part_rows), [&](int64_t part) {
    const int64_t end = std::min(x.rows(), (part + 1) * part_rows);
    for (int64_t t = part * part_rows; t < end; ++t) {
      const float* row = x.as<float>() + t * d;
      float* out = y.as<float>() + t * d;
      const double sum = kernels.exp_sum(row, kernels.max(row, d), out, d);
      kernels.scale(out, static_cast<float>(1.0 / sum), d);
    }
  }));
}

}  // namespace lutra
