#include "quantize/grid_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "quantize/block_search.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"

namespace lutra {

namespace {

constexpr int kShrinkSteps = 100;  // of lo and hi together
constexpr int kSideSteps = 20;     // of each of them

// Candidate `index` for a group that spans [lo, hi]: even ones are plain grids, odd ones have the zero on the other
// side of -lo / scale.
UniformGrid candidate_of(const GridOptions& options, double lo, double hi, int64_t index) {
  const int64_t zeros = options.symmetric ? 1 : 2;
  const double shrink = 1.0 - static_cast<double>(index / zeros) / kShrinkSteps;
  UniformGrid grid = grid_of(options, lo * shrink, hi * shrink);
  if (options.symmetric || index % 2 == 0 || (lo == 0 && hi == 0)) return grid;
  const double zero = -lo * shrink / static_cast<double>(grid.scale);
  const double other = static_cast<double>(grid.zero) > zero ? std::floor(zero) : std::ceil(zero);
  grid.zero = static_cast<float>(std::clamp(other, 0.0, largest_code(options.bits)));
  return grid;
}

// Errors of one group weighted by column, or anything above `limit` once it is passed.
double weighted_error(const float* w, const double* importance, int64_t count, const UniformGrid& grid, double largest,
                      double limit) {
  constexpr int64_t kStride = 16;
  double sum = 0.0;
  for (int64_t i = 0; i < count && sum <= limit; i += kStride)
    for (int64_t j = i; j < std::min(count, i + kStride); ++j) {
      const double d = nearest_value(w[j], grid, largest) - w[j];
      sum += importance[j] * d * d;
    }
  return sum;
}

UniformGrid search_group(const GridOptions& options, const float* w, const double* importance, int64_t count) {
  double lo, hi;
  range_of(w, count, &lo, &hi);
  const double largest = largest_code(options.bits);
  UniformGrid best = grid_of(options, lo, hi);
  if (lo == 0 && hi == 0) return best;
  double least = weighted_error(w, importance, count, best, largest, std::numeric_limits<double>::infinity());
  const auto consider = [&](double low, double high) {
    const UniformGrid grid = grid_of(options, lo * low, hi * high);
    const double found = weighted_error(w, importance, count, grid, largest, least);
    if (!(found < least)) return;
    least = found;
    best = grid;
  };
  const int steps = options.symmetric ? kShrinkSteps : kSideSteps;
  for (int i = 0; i < steps; ++i) {
    const double low = 1.0 - static_cast<double>(i) / steps;
    if (options.symmetric) consider(low, low);
    // A side that holds nothing but zero has nothing to shrink.
    for (int j = 0; !options.symmetric && j < (hi > 0 ? kSideSteps : 1); ++j)
      consider(low, 1.0 - static_cast<double>(j) / kSideSteps);
    if (lo == 0 && !options.symmetric) break;
  }
  return best;
}

}  // namespace

Status fit_grid_to_hessian(Context& context, const GridOptions& options, const TensorView& w, const TensorView& hessian,
                           const TensorView& scales, const TensorView& zeros) {
  LUTRA_TRY(check_grid_fit(context, options, w, scales, zeros));
  const int64_t rows = w.shape[0], k = w.shape[1], groups = scales.shape[1];
  const int64_t bytes = std::max<int64_t>(rows * groups, 1) * static_cast<int64_t>(sizeof(int32_t));
  const AlignedBuffer best(static_cast<size_t>(bytes));
  if (!best) return out_of_memory(bytes);
  const auto trial = [](const GridOptions& o, double lo, double hi, int64_t index) {
    return Trial{.grid = candidate_of(o, lo, hi, index)};
  };
  const BlockSearch search{options, options.symmetric ? kShrinkSteps : 2 * kShrinkSteps, trial};
  LUTRA_TRY(search_blocks(context, search, w, hessian, best.as<int32_t>()));
  const int64_t length = group_length(options.group_size, k);
  LUTRA_TRY(for_rows(context, rows, [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * length;
      double lo, hi;
      range_of(w.as<float>() + row * k + begin, std::min(length, k - begin), &lo, &hi);
      const UniformGrid grid = candidate_of(options, lo, hi, best.as<int32_t>()[row * groups + g]);
      scales.as<float>()[row * groups + g] = grid.scale;
      zeros.as<float>()[row * groups + g] = grid.zero;
    }
  }));
  return check_scales(scales);
}

Status fit_grid_weighted(Context& context, const GridOptions& options, const TensorView& w,
                         const TensorView& importance, const TensorView& scales, const TensorView& zeros) {
  LUTRA_TRY(check_grid_fit(context, options, w, scales, zeros));
  LUTRA_TRY(require_rank(importance, 1, "grid: the importance must have 1 dimension"));
  LUTRA_TRY(require_dtype(importance, Dtype::kF64, "grid: the importance must be f64"));
  const int64_t k = w.shape[1], groups = scales.shape[1];
  LUTRA_TRY(require_equal(importance.shape[0], k, "grid: elements of the importance, against columns of w"));
  const int64_t length = group_length(options.group_size, k);
  const AlignedBuffer relative(static_cast<size_t>(k) * sizeof(double));
  if (!relative) return out_of_memory(k * static_cast<int64_t>(sizeof(double)));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * length, end = std::min(k, begin + length);
    double heaviest = 0.0;
    for (int64_t j = begin; j < end; ++j) {
      const double weight = importance.as<double>()[j];
      if (!(weight >= 0) || std::isinf(weight))
        return error(Code::kNonFinite, "grid: the importance of this column is no number from 0", j);
      heaviest = std::max(heaviest, weight);
    }
    for (int64_t j = begin; j < end; ++j)
      relative.as<double>()[j] = heaviest > 0 ? importance.as<double>()[j] / heaviest : 1.0;
  }
  LUTRA_TRY(finished(context.parallel(w.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * length;
      const UniformGrid grid = search_group(options, w.as<float>() + row * k + begin, relative.as<double>() + begin,
                                            std::min(k, begin + length) - begin);
      scales.as<float>()[row * groups + g] = grid.scale;
      zeros.as<float>()[row * groups + g] = grid.zero;
    }
  })));
  return check_scales(scales);
}

}  // namespace lutra
