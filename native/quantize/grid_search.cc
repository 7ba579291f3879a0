#include "quantize/grid_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/grid.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int kShrinkSteps = 100;                    // of lo and hi together
constexpr int kSideSteps = 20;                       // of each of them
constexpr int64_t kBandElements = int64_t{1} << 20;  // errors of candidates that are held at once
constexpr int64_t kPartCandidates = 16;

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

double rounded(float w, const UniformGrid& grid, double largest) {
  return grid_value(grid_code(w, grid.scale, grid.zero, largest), grid.scale, grid.zero);
}

// The search over one group's columns for a band of rows: the errors of every candidate of every row, times the block
// of the Hessian, in one product.
struct BlockSearch {
  const GridOptions& options;
  const float* w;  // the group's first weight of the band's first row
  int64_t k;
  int64_t rows;
  int64_t width;
  int64_t candidates;
  float* errors;   // [rows, candidates, width]
  float* pulled;   // the same, times the block
  double* scores;  // [rows, candidates]

  template <typename Body>
  Status each(Context& context, Body&& body) const {
    const int64_t all = rows * candidates;
    return finished(context.parallel(ceil_div(all, kPartCandidates), [&](int64_t part) {
      for (int64_t i = part * kPartCandidates; i < std::min(all, (part + 1) * kPartCandidates); ++i) body(i);
    }));
  }

  UniformGrid grid(int64_t row, int64_t candidate) const {
    double lo, hi;
    range_of(w + row * k, width, &lo, &hi);
    return candidate_of(options, lo, hi, candidate);
  }

  Status score(Context& context, const float* block) const {
    const double largest = largest_code(options.bits);
    LUTRA_TRY(each(context, [&](int64_t i) {
      const float* in = w + i / candidates * k;
      const UniformGrid tried = grid(i / candidates, i % candidates);
      for (int64_t j = 0; j < width; ++j)
        errors[i * width + j] = static_cast<float>(rounded(in[j], tried, largest) - in[j]);
    }));
    const RightOperand right{.data = block, .stride = width};
    LUTRA_TRY(product(context, rows * candidates, width, width, errors, width, right, pulled, width));
    return each(context, [&](int64_t i) {
      double sum = 0.0;
      for (int64_t j = 0; j < width; ++j)
        sum += static_cast<double>(errors[i * width + j]) * static_cast<double>(pulled[i * width + j]);
      scores[i] = sum;
    });
  }

  // The first candidate of the least score.
  UniformGrid best(int64_t row) const {
    int64_t found = 0;
    for (int64_t c = 1; c < candidates; ++c)
      if (scores[row * candidates + c] < scores[row * candidates + found]) found = c;
    return grid(row, found);
  }
};

// Errors of one group weighted by column, or anything above `limit` once it is passed.
double weighted_error(const float* w, const double* importance, int64_t count, const UniformGrid& grid, double largest,
                      double limit) {
  constexpr int64_t kStride = 16;
  double sum = 0.0;
  for (int64_t i = 0; i < count && sum <= limit; i += kStride)
    for (int64_t j = i; j < std::min(count, i + kStride); ++j) {
      const double d = rounded(w[j], grid, largest) - w[j];
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
  LUTRA_TRY(require_rank(hessian, 2, "grid: the Hessian must have 2 dimensions"));
  LUTRA_TRY(require_dtype(hessian, Dtype::kF64, "grid: the Hessian must be f64"));
  const int64_t rows = w.shape[0], k = w.shape[1], groups = scales.shape[1];
  LUTRA_TRY(require_equal(hessian.shape[0], k, "grid: rows of the Hessian, against columns of w"));
  LUTRA_TRY(require_equal(hessian.shape[1], k, "grid: columns of the Hessian, against columns of w"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, hessian, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "grid: the Hessian is not finite at this element", bad);
  if (rows == 0 || k == 0) return ok_status();
  const int64_t length = std::min(k, group_length(options.group_size, k));
  const int64_t candidates = options.symmetric ? kShrinkSteps : 2 * kShrinkSteps;
  const int64_t band = std::clamp<int64_t>(kBandElements / (candidates * length), 1, rows);
  const size_t held = static_cast<size_t>(band * candidates * length) * sizeof(float);
  // The product uses the context's scratch: these live beside it.
  const AlignedBuffer block(static_cast<size_t>(length * length) * sizeof(float));
  const AlignedBuffer errors(held), pulled(held), scores(static_cast<size_t>(band * candidates) * sizeof(double));
  if (!block || !errors || !pulled || !scores) return out_of_memory(static_cast<int64_t>(2 * held));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * length, width = std::min(k, begin + length) - begin;
    LUTRA_TRY(finished(context.parallel(width, [&](int64_t i) {
      const double* in = hessian.as<double>() + (begin + i) * k + begin;
      for (int64_t j = 0; j < width; ++j) block.as<float>()[i * width + j] = static_cast<float>(in[j]);
    })));
    for (int64_t first = 0; first < rows; first += band) {
      const BlockSearch search{options,
                               w.as<float>() + first * k + begin,
                               k,
                               std::min(band, rows - first),
                               width,
                               candidates,
                               errors.as<float>(),
                               pulled.as<float>(),
                               scores.as<double>()};
      LUTRA_TRY(search.score(context, block.as<float>()));
      for (int64_t row = 0; row < search.rows; ++row) {
        const UniformGrid grid = search.best(row);
        scales.as<float>()[(first + row) * groups + g] = grid.scale;
        zeros.as<float>()[(first + row) * groups + g] = grid.zero;
      }
    }
  }
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
