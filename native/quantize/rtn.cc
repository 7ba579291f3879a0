#include "quantize/rtn.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/grid.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int kShrinkSteps = 80;

// sum |w - w^|^2.4, or anything above `limit` once it is passed.
double distance(const float* w, int64_t count, const UniformGrid& grid, double largest, double limit) {
  constexpr int64_t kStride = 32;
  double sum = 0;
  for (int64_t i = 0; i < count && sum <= limit; i += kStride)
    for (int64_t j = i; j < std::min(count, i + kStride); ++j) {
      sum += std::pow(static_cast<float>(std::fabs(w[j] - nearest_value(w[j], grid, largest))), 2.4f);
    }
  return sum;
}

}  // namespace

UniformGrid grid_of(const GridOptions& options, double lo, double hi) {
  const double largest = largest_code(options.bits);
  const double half = static_cast<double>(1 << (options.bits - 1));
  if (lo == 0 && hi == 0) return {1.0f, options.symmetric ? static_cast<float>(half) : 0.0f};
  if (options.symmetric) {
    const float scale = stored_not_below(options.scale_dtype, 2 * std::max(-lo, hi) / largest);
    return {scale, static_cast<float>(half)};
  }
  const float scale = stored_not_below(options.scale_dtype, (hi - lo) / largest);
  return {scale, static_cast<float>(grid_code(-lo, scale, 0.0, largest))};
}

UniformGrid fit_group(const GridOptions& options, const float* w, int64_t count) {
  double lo, hi;
  range_of(w, count, &lo, &hi);
  UniformGrid best = grid_of(options, lo, hi);
  if (!options.search || (lo == 0 && hi == 0)) return best;
  const double largest = largest_code(options.bits);
  double least = distance(w, count, best, largest, std::numeric_limits<double>::infinity());
  for (int i = 1; i < kShrinkSteps; ++i) {
    const double shrink = 1.0 - i / 100.0;
    const UniformGrid candidate = grid_of(options, lo * shrink, hi * shrink);
    const double found = distance(w, count, candidate, largest, least);
    if (found < least) {
      least = found;
      best = candidate;
    }
  }
  return best;
}

void range_of(const float* w, int64_t count, double* lo, double* hi) {
  *lo = *hi = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    *lo = std::min(*lo, static_cast<double>(w[i]));
    *hi = std::max(*hi, static_cast<double>(w[i]));
  }
}

int64_t group_length(int64_t group_size, int64_t k) {
  const int64_t row = std::max<int64_t>(k, 1);
  return group_size == -1 ? row : std::min(group_size, row);
}

Status check_grid(const GridOptions& options) {
  if (options.bits < 1 || options.bits > kMaxBits)
    return error(Code::kOption, "grid: bits out of range", options.bits, kMaxBits);
  if (options.group_size < 1 && options.group_size != -1)
    return error(Code::kOption, "grid: group_size must be positive, or -1 for the row", options.group_size, -1);
  if (is_float(options.scale_dtype)) return ok_status();
  return error(Code::kDtype, "grid: scales are stored in f16, bf16 or f32", static_cast<int64_t>(options.scale_dtype));
}

Status check_grid_fit(Context& context, const GridOptions& options, const TensorView& w, const TensorView& scales,
                      const TensorView& zeros) {
  LUTRA_TRY(require_rank(w, 2, "grid: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 2, "grid: scales must have 2 dimensions"));
  LUTRA_TRY(require_rank(zeros, 2, "grid: zeros must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "grid: w must be f32"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "grid: scales must be f32"));
  LUTRA_TRY(require_dtype(zeros, Dtype::kF32, "grid: zeros must be f32"));
  LUTRA_TRY(check_grid(options));
  LUTRA_TRY(require_equal(scales.shape[0], w.shape[0], "grid: rows of scales, against rows of w"));
  LUTRA_TRY(require_equal(scales.shape[1], ceil_div(w.shape[1], group_length(options.group_size, w.shape[1])),
                          "grid: groups of scales, against columns of w and group_size"));
  LUTRA_TRY(require_same_shape(scales, zeros, "grid: shape of zeros, against shape of scales"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, "grid: w is not finite at this element", bad);
}

Status check_scales(const TensorView& scales) {
  int64_t too_large = 0;
  for (int64_t i = 0; i < scales.elements(); ++i) too_large += std::isinf(scales.as<float>()[i]);
  if (too_large == 0) return ok_status();
  return error(Code::kOption, "grid: groups whose scale exceeds its storage type", too_large, 0);
}

Status fit_grid(Context& context, const GridOptions& options, const TensorView& w, const TensorView& scales,
                const TensorView& zeros, int64_t* subnormal) {
  LUTRA_TRY(check_grid_fit(context, options, w, scales, zeros));
  const int64_t k = w.shape[1];
  const int64_t groups = scales.shape[1];
  const int64_t length = group_length(options.group_size, k);
  std::atomic<int64_t> too_small{0};
  LUTRA_TRY(finished(context.parallel(w.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * length;
      const UniformGrid grid = fit_group(options, w.as<float>() + row * k + begin, std::min(length, k - begin));
      scales.as<float>()[row * groups + g] = grid.scale;
      zeros.as<float>()[row * groups + g] = grid.zero;
      if (grid.scale < smallest_normal(options.scale_dtype)) too_small.fetch_add(1, std::memory_order_relaxed);
    }
  })));
  if (subnormal) *subnormal = too_small.load();
  return check_scales(scales);
}

}  // namespace lutra
