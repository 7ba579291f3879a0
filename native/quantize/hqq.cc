#include "quantize/hqq.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

struct Group {
  float scale;
  float offset;
};

// Mean magnitude of the error with nearest codes, and the mean of w - shrink(error) - scale * code: where the offset
// goes next.
struct Step {
  double error;
  double offset;
};

Step step(const HqqOptions& options, const float* w, int64_t count, const Group& group, double beta) {
  const double scale = group.scale, offset = group.offset;
  const double largest = largest_code(options.bits);
  double error = 0.0, next = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double stepped = scale * grid_code(w[i] - offset, scale, 0.0, largest);
    const double off = w[i] - (stepped + offset);
    error += std::fabs(off);
    next += w[i] - hqq_shrink(off, options.norm, beta) - stepped;
  }
  const double n = static_cast<double>(count);
  return {error / n, next / n};
}

Group fit_group(const HqqOptions& options, const float* w, int64_t count) {
  const auto [lo, hi] = std::minmax_element(w, w + count);
  const double range = static_cast<double>(*hi) - static_cast<double>(*lo);
  const double spacing = range / largest_code(options.bits);
  Group group{range > 0 ? stored_not_below(options.storage, spacing) : 1.0f, stored_value(options.storage, *lo)};
  Group best = group;
  double beta = options.beta;
  double least = 0.0;
  for (int i = 0; i <= options.iterations; ++i) {
    const Step found = step(options, w, count, group, beta);
    if (i > 0 && !(found.error < least)) break;
    least = found.error;
    best = group;
    group.offset = stored_value(options.storage, found.offset);
    beta *= options.kappa;
  }
  return best;
}

Status check(Context& context, const HqqOptions& options, const TensorView& w, const TensorView& scales,
             const TensorView& offsets) {
  LUTRA_TRY(require_rank(w, 2, "hqq: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 2, "hqq: scales must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "hqq: w must be f32"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "hqq: scales must be f32"));
  LUTRA_TRY(require_dtype(offsets, Dtype::kF32, "hqq: offsets must be f32"));
  LUTRA_TRY(require_same_shape(scales, offsets, "hqq: shape of offsets, against shape of scales"));
  if (options.bits < 1 || options.bits > kMaxBits)
    return error(Code::kOption, "hqq: bits out of range", options.bits, kMaxBits);
  if (options.group_size < 1) return error(Code::kOption, "hqq: a group has at least one column", options.group_size);
  if (options.iterations < 0) return error(Code::kOption, "hqq: iterations out of range", options.iterations);
  if (!(options.norm > 0 && options.norm <= 1 && options.beta > 0 && options.kappa > 0))
    return error(Code::kOption, "hqq: norm in (0, 1], beta and kappa above 0 are needed");
  if (!is_float(options.storage)) return error(Code::kDtype, "hqq: values are stored in f16, bf16 or f32");
  LUTRA_TRY(require_equal(scales.shape[0], w.shape[0], "hqq: rows of scales, against rows of w"));
  LUTRA_TRY(require_equal(scales.shape[1], ceil_div(w.shape[1], options.group_size),
                          "hqq: groups of scales, against columns of w and group_size"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, "hqq: w is not finite at this element", bad);
}

}  // namespace

double hqq_shrink(double x, double norm, double beta) {
  const double magnitude = std::fabs(x);
  // At zero the power has no bound, and nothing is left anyway.
  const double left = magnitude > 0 ? magnitude - std::pow(magnitude, norm - 1) / beta : 0.0;
  return left > 0 ? std::copysign(left, x) : 0.0;
}

Status hqq_fit(Context& context, const HqqOptions& options, const TensorView& w, const TensorView& scales,
               const TensorView& offsets) {
  LUTRA_TRY(check(context, options, w, scales, offsets));
  const int64_t k = w.shape[1], groups = scales.shape[1];
  std::atomic<int64_t> too_large{0};
  LUTRA_TRY(for_long_rows(context, w.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * options.group_size;
      const int64_t count = std::min(k, begin + options.group_size) - begin;
      const Group group = fit_group(options, w.as<float>() + row * k + begin, count);
      scales.as<float>()[row * groups + g] = group.scale;
      offsets.as<float>()[row * groups + g] = group.offset;
      if (!std::isfinite(group.scale) || !std::isfinite(group.offset))
        too_large.fetch_add(1, std::memory_order_relaxed);
    }
  }));
  if (too_large.load() > 0)
    return error(Code::kOption, "hqq: groups whose values exceed their storage type", too_large.load(), 0);
  return ok_status();
}

}  // namespace lutra
