#include "quantize/awq.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/aligned_buffer.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/block_search.h"
#include "quantize/for_rows.h"

namespace lutra {

namespace {

constexpr int kClipSteps = 10;
constexpr double kClipStep = 0.05;

Status check_operands(Context& context, const GridOptions& options, const TensorView& w, const TensorView& y) {
  LUTRA_TRY(require_rank(w, 2, "awq: w must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "awq: w must be f32"));
  LUTRA_TRY(require_dtype(y, Dtype::kF32, "awq: y must be f32"));
  LUTRA_TRY(require_same_shape(w, y, "awq: shape of y, against shape of w"));
  LUTRA_TRY(require_same_or_apart(y, w, "awq: y must be w or share no memory with it"));
  LUTRA_TRY(check_grid(options));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, "awq: w is not finite at this element", bad);
}

// Step `index` of the clipping of a group that spans [lo, hi]; the grid is the one of the clamped weights.
Trial clipped(const GridOptions& options, double lo, double hi, int64_t index) {
  const float limit = static_cast<float>((1 - kClipStep * static_cast<double>(index)) * std::max(-lo, hi));
  const double most = limit;
  return {grid_of(options, std::max(lo, -most), std::min(hi, most)), limit};
}

}  // namespace

Status round_scaled(Context& context, const GridOptions& options, const TensorView& w, const TensorView& s,
                    const TensorView& y) {
  LUTRA_TRY(check_operands(context, options, w, y));
  LUTRA_TRY(require_rank(s, 1, "awq: s must have 1 dimension"));
  LUTRA_TRY(require_dtype(s, Dtype::kF64, "awq: s must be f64"));
  const int64_t m = w.shape[0], k = w.shape[1];
  LUTRA_TRY(require_equal(s.shape[0], k, "awq: elements of s, against columns of w"));
  const double* scale = s.as<double>();
  for (int64_t j = 0; j < k; ++j)
    if (!(scale[j] > 0) || std::isinf(scale[j]))
      return error(Code::kNonFinite, "awq: the scale of this column is no positive number", j);
  const int64_t length = group_length(options.group_size, k);
  const double largest = largest_code(options.bits);
  const size_t slot = static_cast<size_t>(std::max<int64_t>(k, 1)) * sizeof(float);
  const size_t bytes = LaneScratch::bytes(context, slot);
  void* memory = context.scratch(bytes);
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory, slot);
  std::atomic<int64_t> too_large{0};
  LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
    const LaneScratch::Slot lane(lanes);
    float* scaled = lane.as<float>();
    for (int64_t j = 0; j < k; ++j)
      scaled[j] = static_cast<float>(static_cast<double>(w.as<float>()[row * k + j]) * scale[j]);
    for (int64_t begin = 0; begin < k; begin += length) {
      const int64_t end = std::min(k, begin + length);
      double lo, hi;
      range_of(scaled + begin, end - begin, &lo, &hi);
      const UniformGrid grid = grid_of(options, lo, hi);
      if (std::isinf(grid.scale)) too_large.fetch_add(1, std::memory_order_relaxed);
      for (int64_t j = begin; j < end; ++j)
        y.as<float>()[row * k + j] = static_cast<float>(nearest_value(scaled[j], grid, largest) / scale[j]);
    }
  }));
  const int64_t found = too_large.load();
  return found == 0 ? ok_status() : error(Code::kOption, "awq: groups whose scale exceeds its storage type", found, 0);
}

Status clip_to_hessian(Context& context, const GridOptions& options, const TensorView& w, const TensorView& hessian,
                       const TensorView& y, int64_t* clipped_groups) {
  LUTRA_TRY(check_operands(context, options, w, y));
  const int64_t m = w.shape[0], k = w.shape[1], length = group_length(options.group_size, k);
  const int64_t groups = ceil_div(k, length);
  const int64_t bytes = std::max<int64_t>(m * groups, 1) * static_cast<int64_t>(sizeof(int32_t));
  const AlignedBuffer best(static_cast<size_t>(bytes));
  if (!best) return out_of_memory(bytes);
  const BlockSearch search{options, kClipSteps, clipped};
  LUTRA_TRY(search_blocks(context, search, w, hessian, best.as<int32_t>()));
  std::atomic<int64_t> count{0};
  LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = row * k + g * length, width = std::min(length, k - g * length);
      const int32_t index = best.as<int32_t>()[row * groups + g];
      double lo, hi;
      range_of(w.as<float>() + begin, width, &lo, &hi);
      const float limit = clipped(options, lo, hi, index).limit;
      for (int64_t j = begin; j < begin + width; ++j) y.as<float>()[j] = std::clamp(w.as<float>()[j], -limit, limit);
      if (index > 0) count.fetch_add(1, std::memory_order_relaxed);
    }
  }));
  *clipped_groups = count.load();
  return ok_status();
}

Status mean_magnitudes(Context& context, const TensorView& x, const TensorView& mean) {
  LUTRA_TRY(require_rank(x, 2, "awq: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(mean, 1, "awq: mean must have 1 dimension"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "awq: x must be f32"));
  LUTRA_TRY(require_dtype(mean, Dtype::kF64, "awq: mean must be f64"));
  const int64_t tokens = x.shape[0], k = x.shape[1];
  LUTRA_TRY(require_equal(mean.shape[0], k, "awq: elements of mean, against columns of x"));
  if (tokens == 0 && k > 0) return error(Code::kShape, "awq: x has no rows", 0, 1);
  constexpr int64_t kColumns = 16;  // a cache line of x
  return finished(context.parallel(ceil_div(k, kColumns), [&](int64_t part) {
    const int64_t begin = part * kColumns, width = std::min(kColumns, k - begin);
    double sums[kColumns] = {};
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t j = 0; j < width; ++j) sums[j] += std::fabs(static_cast<double>(x.as<float>()[t * k + begin + j]));
    for (int64_t j = 0; j < width; ++j) mean.as<double>()[begin + j] = sums[j] / static_cast<double>(tokens);
  }));
}

}  // namespace lutra
