#include <algorithm>
#include <cmath>

#include "core/aligned_buffer.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/adam.h"
#include "quantize/decoupleq.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"

namespace lutra {

namespace {

// Slopes are in steps of the grid and in units of the mean diagonal: these do not depend on anybody's unit.
AdamOptions adam_of(double rate) { return {rate, 0.9, 0.999, 1e-5, 0.0}; }

struct DescentRows {
  const ScaleFit& options;
  const TensorView& w;
  const TensorView& scales;
  const TensorView& offsets;
  uint8_t* codes;
  float* metric;       // [k, k]: the damped Hessian, of mean diagonal 1
  float* places;       // [m, k]: where a weight is on its grid, in steps from code 0
  float* first;        // [m, k]: Adam's moments
  float* second;       // [m, k]
  float* differences;  // [m, k]: weights where they are, minus those they were
  float* slopes;       // [m, k]: differences times the metric, from the first column that moves
  int64_t m = w.shape[0];
  int64_t k = w.shape[1];
  int64_t groups = scales.shape[1];
  double largest = largest_code(options.bits);
  int64_t steps = 0;  // so far

  double scale(int64_t row, int64_t j) const { return scales.as<float>()[row * groups + j / options.group_size]; }
  double offset(int64_t row, int64_t j) const {
    return options.symmetric ? -scale(row, j) * static_cast<double>(1 << (options.bits - 1))
                             : offsets.as<float>()[row * groups + j / options.group_size];
  }
  // NaN, where a slope overflowed, gives 0: the fit that follows sees a row that is no better.
  float inside(double place) const { return static_cast<float>(place >= largest ? largest : place > 0 ? place : 0.0); }
  void measure(int64_t row, int64_t j) const {
    const int64_t at = row * k + j;
    differences[at] = static_cast<float>(scale(row, j) * places[at] + offset(row, j) - w.as<float>()[at]);
  }

  Status load(Context& context, const DampedHessian& damped) const {
    const Matrix64 hessian = upper_triangle(damped.hessian);
    const double* damping = damped.diagonal.as<double>();
    double trace = 0.0;
    for (int64_t i = 0; i < k; ++i) trace += hessian.at(i, i) + damping[i];
    const double unit = trace > 0 ? static_cast<double>(k) / trace : 1.0;
    LUTRA_TRY(read_symmetric(context, hessian, 0, k, 0, k, metric, k,
                             [unit](double h) { return static_cast<float>(unit * h); }));
    for (int64_t i = 0; i < k; ++i) metric[i * k + i] = static_cast<float>(unit * (hessian.at(i, i) + damping[i]));
    return for_rows(context, m, [&](int64_t row) {
      for (int64_t j = 0; j < k; ++j) {
        const int64_t at = row * k + j;
        const double span = scale(row, j);
        places[at] = span == 0 ? 0.0f : inside((w.as<float>()[at] - offset(row, j)) / span);
        first[at] = second[at] = 0.0f;
        measure(row, j);
      }
    });
  }

  // One step of the columns from `from` on.
  Status step(Context& context, double rate, int64_t from) {
    if (from == k) return ok_status();
    const RightOperand right{.data = metric + from * k, .stride = k};
    LUTRA_TRY(product(context, m, k - from, k, differences, k, right, slopes, k));
    const AdamUpdate update(adam_of(rate), ++steps);
    return for_rows(context, m, [&](int64_t row) {
      for (int64_t j = from; j < k; ++j) {
        const int64_t at = row * k + j;
        const double span = scale(row, j);
        if (span == 0) continue;
        update.apply(slopes[row * k + j - from] / span, places + at, first + at, second + at);
        places[at] = inside(places[at]);
        measure(row, j);
      }
    });
  }

  Status round(Context& context, int64_t column) const {
    return for_rows(context, m, [&](int64_t row) {
      float& place = places[row * k + column];
      place = std::floor(place + 0.5f);
      codes[row * k + column] = static_cast<uint8_t>(place);
      measure(row, column);
    });
  }
};

Status check(Context& context, const ScaleFit& options, const Descent& descent, const TensorView& w,
             const TensorView& scales, const TensorView& offsets, const TensorView& codes) {
  LUTRA_TRY(require_rank(w, 2, "decoupleq: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 2, "decoupleq: scales must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "decoupleq: w must be f32"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "decoupleq: scales must be f32"));
  LUTRA_TRY(require_dtype(offsets, Dtype::kF32, "decoupleq: offsets must be f32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "decoupleq: codes must be u8"));
  LUTRA_TRY(require_same_shape(w, codes, "decoupleq: shape of codes, against shape of w"));
  LUTRA_TRY(require_same_shape(scales, offsets, "decoupleq: shape of offsets, against shape of scales"));
  if (options.group_size < 1) return error(Code::kOption, "decoupleq: a group has a column", options.group_size);
  if (options.bits < 1 || options.bits > kMaxBits)
    return error(Code::kOption, "decoupleq: bits out of range", options.bits, kMaxBits);
  LUTRA_TRY(require_equal(scales.shape[0], w.shape[0], "decoupleq: rows of scales, against rows of w"));
  LUTRA_TRY(require_equal(scales.shape[1], ceil_div(w.shape[1], options.group_size),
                          "decoupleq: groups of scales, against columns of w"));
  if (descent.steps < 0 || descent.inner_steps < 0 || !(descent.rate > 0))
    return error(Code::kOption, "decoupleq: steps are not negative and the rate is positive");
  for (const TensorView& values : {w, scales, offsets}) {
    int64_t bad = -1;
    LUTRA_TRY(find_non_finite(context, values, &bad));
    if (bad >= 0) return error(Code::kNonFinite, "decoupleq: w, a scale or an offset is not finite here", bad);
  }
  return ok_status();
}

}  // namespace

Status decoupleq_descend(Context& context, const ScaleFit& options, const Descent& descent, const DampedHessian& metric,
                         const TensorView& w, const TensorView& scales, const TensorView& offsets,
                         const TensorView& codes) {
  LUTRA_TRY(check(context, options, descent, w, scales, offsets, codes));
  LUTRA_TRY(check_damped(context, metric, w.shape[1]));
  const int64_t m = w.shape[0], k = w.shape[1];
  const auto floats = [](int64_t count) { return AlignedBuffer(static_cast<size_t>(count) * sizeof(float)); };
  const AlignedBuffer square = floats(k * k), places = floats(m * k), first = floats(m * k), second = floats(m * k);
  const AlignedBuffer differences = floats(m * k), slopes = floats(m * k);
  if (!square || !places || !first || !second || !differences || !slopes)
    return out_of_memory((5 * m + k) * k * static_cast<int64_t>(sizeof(float)));
  DescentRows rows{options,
                   w,
                   scales,
                   offsets,
                   codes.as<uint8_t>(),
                   square.as<float>(),
                   places.as<float>(),
                   first.as<float>(),
                   second.as<float>(),
                   differences.as<float>(),
                   slopes.as<float>()};
  LUTRA_TRY(rows.load(context, metric));
  for (int64_t step = 0; step < descent.steps; ++step) LUTRA_TRY(rows.step(context, descent.rate, 0));
  for (int64_t column = 0; column < k; ++column) {
    LUTRA_TRY(rows.round(context, column));
    for (int64_t step = 0; step < descent.inner_steps; ++step) LUTRA_TRY(rows.step(context, descent.rate, column + 1));
  }
  return ok_status();
}

}  // namespace lutra
