#include <algorithm>
#include <array>
#include <limits>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "quantize/decoupleq.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int kSteps = 160;                           // of the factor 1 - i / 200
constexpr int kCoarse = 20;                           // apart, of all of them
constexpr std::array<int, 4> kFiner = {10, 5, 2, 1};  // to either side of the best

struct Search {
  const GridOptions& options;
  const TensorView& w;
  const TensorView& scales;
  const TensorView& offsets;
  float* differences;  // [m, k]: nearest grid values minus weights
  double* scores;      // [m]
  double* least;       // [m]
  int* steps;          // [m]: those of the least scores
  int64_t m = w.shape[0];
  int64_t k = w.shape[1];
  int64_t groups = scales.shape[1];
  int64_t length = group_length(options.group_size, k);

  // The grid of a group with this step, offset and all: real numbers in their storage type.
  void grid_at(int64_t row, int64_t g, int step, float* scale, float* offset) const {
    double lo, hi;
    const int64_t begin = g * length;
    range_of(w.as<float>() + row * k + begin, std::min(length, k - begin), &lo, &hi);
    const double shrink = 1.0 - step / 200.0;
    const UniformGrid grid = grid_of(options, lo * shrink, hi * shrink);
    *scale = grid.scale;
    *offset = options.symmetric ? -grid.scale * grid.zero : stored_value(options.scale_dtype, lo * shrink);
  }

  void round_row(int64_t row, int step) const {
    const double largest = largest_code(options.bits);
    for (int64_t g = 0; g < groups; ++g) {
      float scale, offset;
      grid_at(row, g, step, &scale, &offset);
      const double zero = -static_cast<double>(offset) / static_cast<double>(scale);
      for (int64_t at = row * k + g * length; at < row * k + std::min(k, (g + 1) * length); ++at) {
        const double code = grid_code(w.as<float>()[at], scale, zero, largest);
        differences[at] = static_cast<float>(scale * code + offset - w.as<float>()[at]);
      }
    }
  }

  // Tries step_of(row) for every row and remembers what is better.
  template <typename StepOf>
  Status consider(Context& context, const DampedHessian& metric, StepOf&& step_of) const {
    LUTRA_TRY(for_rows(context, m, [&](int64_t row) { round_row(row, step_of(row)); }));
    const TensorView x{.data = differences, .dtype = Dtype::kF32, .rank = 2, .shape = {m, k}};
    const TensorView values{.data = scores, .dtype = Dtype::kF64, .rank = 1, .shape = {m}};
    LUTRA_TRY(damped_form_rows(context, metric, x, values));
    return for_rows(context, m, [&](int64_t row) {
      if (!(scores[row] < least[row])) return;
      least[row] = scores[row];
      steps[row] = step_of(row);
    });
  }
};

}  // namespace

Status decoupleq_search(Context& context, const GridOptions& options, const DampedHessian& metric, const TensorView& w,
                        const TensorView& scales, const TensorView& offsets) {
  LUTRA_TRY(check_grid_fit(context, options, w, scales, offsets));
  LUTRA_TRY(check_damped(context, metric, w.shape[1]));
  const int64_t m = w.shape[0];
  const AlignedBuffer differences(w.bytes());
  const AlignedBuffer numbers(static_cast<size_t>(2 * m) * sizeof(double));
  const AlignedBuffer steps(static_cast<size_t>(2 * m) * sizeof(int));
  if (!differences || !numbers || !steps) return out_of_memory(static_cast<int64_t>(w.bytes()));
  const Search search{
      options,        w, scales, offsets, differences.as<float>(), numbers.as<double>(), numbers.as<double>() + m,
      steps.as<int>()};
  std::fill_n(search.least, m, std::numeric_limits<double>::infinity());
  std::fill_n(search.steps, m, 0);
  for (int step = 0; step < kSteps; step += kCoarse)
    LUTRA_TRY(search.consider(context, metric, [step](int64_t) { return step; }));
  int* centre = steps.as<int>() + m;
  for (const int finer : kFiner) {
    std::copy_n(search.steps, m, centre);
    for (const int side : {-finer, finer})
      LUTRA_TRY(
          search.consider(context, metric, [=](int64_t row) { return std::clamp(centre[row] + side, 0, kSteps - 1); }));
  }
  LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
    for (int64_t g = 0; g < search.groups; ++g) {
      float scale, offset;
      search.grid_at(row, g, search.steps[row], &scale, &offset);
      scales.as<float>()[row * search.groups + g] = scale;
      if (!options.symmetric) offsets.as<float>()[row * search.groups + g] = offset;
    }
  }));
  return check_scales(scales);
}

}  // namespace lutra
