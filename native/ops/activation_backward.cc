// The elementwise operators, backwards, and the squared error in which the way back begins.
#include <algorithm>
#include <cmath>

#include "ops/backward.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kPartElements = int64_t{1} << 15;

int64_t part_rows(int64_t d) { return std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, d)); }

}  // namespace

Status swiglu_backward(Context& context, const TensorView& gate, const TensorView& up, const TensorView& dy,
                       const TensorView& dgate, const TensorView& dup) {
  for (const TensorView* operand : {&gate, &up, &dy, &dgate, &dup}) {
    LUTRA_TRY(require_rank(*operand, 2, "swiglu_backward: all operands have 2 dimensions"));
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "swiglu_backward: all operands must be f32"));
    LUTRA_TRY(require_same_shape(gate, *operand, "swiglu_backward: shape of an operand, against shape of gate"));
  }
  LUTRA_TRY(require_same_or_apart(dgate, dy, "swiglu_backward: dgate may be dy, or not overlap it"));
  LUTRA_TRY(require_apart(dup, dy, "swiglu_backward: dup may not overlap dy"));
  LUTRA_TRY(require_apart(dup, dgate, "swiglu_backward: dup may not overlap dgate"));
  for (const TensorView* result : {&dgate, &dup})
    for (const TensorView* operand : {&gate, &up})
      LUTRA_TRY(require_apart(*result, *operand, "swiglu_backward: results may not overlap gate or up"));
  const int64_t elements = gate.elements();
  return finished(context.parallel(ceil_div(elements, kPartElements), [&](int64_t part) {
    const int64_t end = std::min(elements, (part + 1) * kPartElements);
    for (int64_t i = part * kPartElements; i < end; ++i) {
      const float g = gate.as<float>()[i], u = up.as<float>()[i], d = dy.as<float>()[i];
      const float share = 1.0f / (1.0f + std::exp(-g));
      dgate.as<float>()[i] = d * u * share * (1.0f + g * (1.0f - share));
      dup.as<float>()[i] = d * g * share;
    }
  }));
}

Status rope_backward(Context& context, const TensorView& dy, const TensorView& cos_sin, int64_t head_dim) {
  LUTRA_TRY(require_rank(dy, 2, "rope_backward: dy must have 2 dimensions"));
  LUTRA_TRY(require_rank(cos_sin, 2, "rope_backward: cos_sin must have 2 dimensions"));
  LUTRA_TRY(require_dtype(dy, Dtype::kF32, "rope_backward: dy must be f32"));
  LUTRA_TRY(require_dtype(cos_sin, Dtype::kF32, "rope_backward: cos_sin must be f32"));
  if (head_dim <= 0 || head_dim % 2)
    return error(Code::kOption, "rope_backward: head_dim must be positive and even", head_dim);
  const int64_t n = dy.shape[0], width = dy.shape[1];
  if (width % head_dim) return error(Code::kShape, "rope_backward: columns of dy must be whole heads", width, head_dim);
  LUTRA_TRY(require_equal(cos_sin.shape[1], head_dim, "rope_backward: columns of cos_sin, against head_dim"));
  LUTRA_TRY(require_apart(dy, cos_sin, "rope_backward: dy may not overlap cos_sin"));
  if (n > cos_sin.shape[0])
    return error(Code::kOption, "rope_backward: rows of dy exceed the positions of cos_sin", n, cos_sin.shape[0]);
  const int64_t half = head_dim / 2, rows = part_rows(width);
  return finished(context.parallel(ceil_div(n, rows), [&](int64_t part) {
    for (int64_t t = part * rows; t < std::min(n, (part + 1) * rows); ++t) {
      const float* cosines = cos_sin.as<float>() + t * head_dim;
      const float* sines = cosines + half;
      for (float* head = dy.as<float>() + t * width; head < dy.as<float>() + (t + 1) * width; head += head_dim)
        for (int64_t i = 0; i < half; ++i) {
          const float a = head[i], b = head[half + i];
          head[i] = a * cosines[i] + b * sines[i];
          head[half + i] = b * cosines[i] - a * sines[i];
        }
    }
  }));
}

Status accumulate_squares(Context& context, const TensorView& x, const TensorView& sum) {
  LUTRA_TRY(require_rank(x, 2, "accumulate_squares: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(sum, 2, "accumulate_squares: sum must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "accumulate_squares: x must be f32"));
  LUTRA_TRY(require_dtype(sum, Dtype::kF32, "accumulate_squares: sum must be f32"));
  LUTRA_TRY(require_same_shape(x, sum, "accumulate_squares: shape of sum, against shape of x"));
  LUTRA_TRY(require_apart(sum, x, "accumulate_squares: sum may not overlap x"));
  const int64_t n = x.shape[0], d = x.shape[1];
  const int64_t rows = part_rows(d);
  return finished(context.parallel(ceil_div(n, rows), [&](int64_t part) {
    for (int64_t i = part * rows * d; i < std::min(n, (part + 1) * rows) * d; ++i)
      sum.as<float>()[i] += x.as<float>()[i] * x.as<float>()[i];
  }));
}

Status squared_error(Context& context, const TensorView& y, const TensorView& target, const TensorView& loss,
                     const TensorView& dy) {
  for (const TensorView* operand : {&y, &target, &dy}) {
    LUTRA_TRY(require_rank(*operand, 2, "squared_error: y, target and dy have 2 dimensions"));
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "squared_error: y, target and dy must be f32"));
    LUTRA_TRY(require_same_shape(y, *operand, "squared_error: shape of target or dy, against shape of y"));
  }
  LUTRA_TRY(require_rank(loss, 1, "squared_error: loss must have 1 dimension"));
  LUTRA_TRY(require_dtype(loss, Dtype::kF64, "squared_error: loss must be f64"));
  const int64_t n = y.shape[0], d = y.shape[1];
  LUTRA_TRY(require_equal(loss.shape[0], n, "squared_error: elements of loss, against rows of y"));
  LUTRA_TRY(require_apart(dy, y, "squared_error: dy may not overlap y"));
  LUTRA_TRY(require_apart(dy, target, "squared_error: dy may not overlap target"));
  LUTRA_TRY(require_apart(loss, y, "squared_error: loss may not overlap y"));
  LUTRA_TRY(require_apart(loss, target, "squared_error: loss may not overlap target"));
  LUTRA_TRY(require_apart(loss, dy, "squared_error: loss may not overlap dy"));
  const double share = 2.0 / (static_cast<double>(n) * static_cast<double>(d));
  const int64_t rows = part_rows(d);
  return finished(context.parallel(ceil_div(n, rows), [&](int64_t part) {
    for (int64_t t = part * rows; t < std::min(n, (part + 1) * rows); ++t) {
      double sum = 0;
      for (int64_t i = t * d; i < (t + 1) * d; ++i) {
        const double off = static_cast<double>(y.as<float>()[i]) - target.as<float>()[i];
        sum += off * off;
        dy.as<float>()[i] = static_cast<float>(share * off);
      }
      loss.as<double>()[t] = d > 0 ? sum / static_cast<double>(d) : 0.0;
    }
  }));
}

}  // namespace lutra
