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

struct Grid {
  float scale = 1.0f;
  float zero = 0.0f;
};

Grid grid_of(const GridOptions& options, double lo, double hi) {
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

// sum |w - w^|^2.4, or anything above `limit` once it is passed.
double distance(const float* w, int64_t count, const Grid& grid, double largest, double limit) {
  constexpr int64_t kStride = 32;
  double sum = 0;
  for (int64_t i = 0; i < count && sum <= limit; i += kStride)
    for (int64_t j = i; j < std::min(count, i + kStride); ++j) {
      const double code = grid_code(w[j], grid.scale, grid.zero, largest);
      sum += std::pow(static_cast<float>(std::fabs(w[j] - grid_value(code, grid.scale, grid.zero))), 2.4f);
    }
  return sum;
}

Grid fit_group(const GridOptions& options, const float* w, int64_t count) {
  double lo = 0;
  double hi = 0;
  for (int64_t i = 0; i < count; ++i) {
    lo = std::min(lo, static_cast<double>(w[i]));
    hi = std::max(hi, static_cast<double>(w[i]));
  }
  Grid best = grid_of(options, lo, hi);
  if (!options.search || (lo == 0 && hi == 0)) return best;
  const double largest = largest_code(options.bits);
  double least = distance(w, count, best, largest, std::numeric_limits<double>::infinity());
  for (int i = 1; i < kShrinkSteps; ++i) {
    const double shrink = 1.0 - i / 100.0;
    const Grid candidate = grid_of(options, lo * shrink, hi * shrink);
    const double found = distance(w, count, candidate, largest, least);
    if (found < least) {
      least = found;
      best = candidate;
    }
  }
  return best;
}

int64_t group_length(int64_t group_size, int64_t k) { return group_size == -1 ? std::max<int64_t>(k, 1) : group_size; }

Status check(int bits, int64_t group_size, const TensorView& w, const TensorView& scales, const TensorView& zeros) {
  LUTRA_TRY(require_rank(w, 2, "grid: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 2, "grid: scales must have 2 dimensions"));
  LUTRA_TRY(require_rank(zeros, 2, "grid: zeros must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "grid: w must be f32"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "grid: scales must be f32"));
  LUTRA_TRY(require_dtype(zeros, Dtype::kF32, "grid: zeros must be f32"));
  if (bits < 1 || bits > kMaxBits) return error(Code::kOption, "grid: bits out of range", bits, kMaxBits);
  if (group_size < 1 && group_size != -1)
    return error(Code::kOption, "grid: group_size must be positive, or -1 for the row", group_size, -1);
  LUTRA_TRY(require_equal(scales.shape[0], w.shape[0], "grid: rows of scales, against rows of w"));
  LUTRA_TRY(require_equal(scales.shape[1], ceil_div(w.shape[1], group_length(group_size, w.shape[1])),
                          "grid: groups of scales, against columns of w and group_size"));
  return require_same_shape(scales, zeros, "grid: shape of zeros, against shape of scales");
}

Status require_finite(Context& context, const TensorView& t, const char* what) {
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, t, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, what, bad);
}

}  // namespace

Status fit_grid(Context& context, const GridOptions& options, const TensorView& w, const TensorView& scales,
                const TensorView& zeros, int64_t* subnormal) {
  LUTRA_TRY(check(options.bits, options.group_size, w, scales, zeros));
  if (!is_float(options.scale_dtype))
    return error(Code::kDtype, "fit_grid: scales are stored in f16, bf16 or f32",
                 static_cast<int64_t>(options.scale_dtype));
  LUTRA_TRY(require_finite(context, w, "fit_grid: w is not finite at this element"));
  const int64_t k = w.shape[1];
  const int64_t groups = scales.shape[1];
  const int64_t length = group_length(options.group_size, k);
  std::atomic<int64_t> too_large{0};
  std::atomic<int64_t> too_small{0};
  LUTRA_TRY(finished(context.parallel(w.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * length;
      const Grid grid = fit_group(options, w.as<float>() + row * k + begin, std::min(length, k - begin));
      scales.as<float>()[row * groups + g] = grid.scale;
      zeros.as<float>()[row * groups + g] = grid.zero;
      if (std::isinf(grid.scale)) too_large.fetch_add(1, std::memory_order_relaxed);
      if (grid.scale < smallest_normal(options.scale_dtype)) too_small.fetch_add(1, std::memory_order_relaxed);
    }
  })));
  if (subnormal) *subnormal = too_small.load();
  if (too_large.load() > 0)
    return error(Code::kOption, "fit_grid: groups whose scale exceeds its storage type", too_large.load(), 0);
  return ok_status();
}

}  // namespace lutra
