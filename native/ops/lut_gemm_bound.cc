// The largest difference that lut_gemm may have from the exact product, for given weights and activations.
//
// Two shares, both sums over the row. Fixed point: a table entry or an activation is off by at most half its block's
// step (and by all of itself, under kLutSmallest, where the block became zero), so a row is off by at most
//   tables       sum over groups and planes of |alpha| * lookups * half a step
//   activations  sum over columns of |w| * half a step.
// Panels of 16-bit floating point are off by their `relative` and `flushed` instead, see lut_gemm.h.
// fp32: the computed sum of terms t, none of which passes through more than D roundings, is off by at most
// D u / (1 - D u) * sum |t|, u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2).
// No term exceeds (|offset| + sum |alpha|) |x|. A sub-branch adds terms |b| |a| |x|, which pass through its own
// roundings and through those of the sum that it starts.
#include <algorithm>
#include <cmath>

#include "ops/lut_gemm_with.h"
#include "ops/operand.h"
#include "ops/sub_branch.h"

namespace lutra {

namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kDenormal = 0x1p-149;

// Roundings on the longest path from an activation to y. Tables: 6 to build and scale an entry, the 16 lookups of up to
// 4 planes of a span one after the other (scalar: 64 products), the spans of a segment, a sum for every plane, the
// offset and the fold of each of its groups, the segments. Panels: 2 for a weight, those of its panel, the joins of
// each later one.
double roundings(const LutTile& tile, const LutPanelKernels* panels) {
  if (panels)
    return static_cast<double>(2 + panels->roundings + (ceil_div(tile.cols, panels->cols) - 1) * panels->joins);
  const int64_t groups = ceil_div(kLutSegment, tile.group_size) + 1;
  const int64_t folds = ((tile.planes ? tile.bits : 1) + 2) * groups;
  const int64_t spans = kLutSegment / kLutBlock * tile.bits;
  return static_cast<double>(6 + kLutBlock + spans + folds + ceil_div(tile.cols, kLutSegment));
}

struct RowBound {
  const LutTile& tile;
  LutRounding rounding;
  const float* steps;  // of the token's tables or blocks; unused where nothing is rounded
  const LutPanelKernels* panels;
  double depth;
  const PackedView& weights;
  const double* sub_branch;  // [rank] of the token: sum over columns of |a| |x|; null where there is none
  int64_t first_row;         // of the tile

  double half_step(int64_t k) const {
    if (rounding == LutRounding::kNothing) return 0.0;
    return std::max(0.5 * static_cast<double>(steps[k / kLutBlock]), static_cast<double>(kLutSmallest));
  }

  // How far the fixed-point values of columns [k, end), all in one block and group, can move the row.
  double fixed_share(const LutGroup& group, int64_t row, int64_t k, int64_t end) const {
    if (rounding == LutRounding::kNothing) return 0.0;
    const double half = half_step(k);
    double sum = 0.0;
    if (rounding == LutRounding::kTables) {
      for (int b = 0; b < tile.bits; ++b) sum += std::fabs(group.alphas[b]);
      return sum * static_cast<double>(ceil_div(end - k, 4)) * half;
    }
    double weights[kLutBlock];
    lut_gemm_reference_weights(tile, row, k, end, weights);
    for (int64_t i = 0; i < end - k; ++i) sum += std::fabs(weights[i]);
    return sum * half;
  }

  double of(int64_t row, const float* x) const {
    double fixed = 0.0;
    double terms = 0.0;
    double denormal = 0.0;
    const double tiny = kDenormal + (panels ? panels->flushed : 0.0);
    int64_t k = 0;
    for (int64_t g = 0; k < tile.cols; ++g) {
      const LutGroup group = lut_gemm_reference_group(tile, row, g);
      double reach = std::fabs(group.offset);
      for (int b = 0; b < tile.bits; ++b) reach += std::fabs(group.alphas[b]);
      const int64_t group_end = lut_group_end(k, tile.cols, tile.group_size);
      while (k < group_end) {
        const int64_t end = lut_span_end(k, group_end);
        fixed += fixed_share(group, row, k, end);
        double sum = 0.0;  // of |x|
        for (int64_t i = k; i < end; ++i) sum += std::fabs(static_cast<double>(x[i]));
        terms += reach * sum;
        // Rounded weights meet rounded activations.
        if (panels && panels->relative > 0.0)
          fixed += (panels->relative * reach + static_cast<double>(kLutSmallest)) *
                   (sum + static_cast<double>(end - k) * half_step(k));
        denormal += (reach + 1.0) * static_cast<double>(end - k) * tiny;
        k = end;
      }
    }
    // Rounded values carry the fixed share into the terms.
    const double main = fixed + gamma(depth + (sub_branch ? 1.0 : 0.0)) * (terms + fixed) + denormal;
    return sub_branch ? main + sub_branch_share(row) : main;
  }

  static double gamma(double roundings) { return roundings * kUnit / (1.0 - roundings * kUnit); }

  double sub_branch_share(int64_t row) const {
    const SubBranch& pair = weights.sub_branch;
    double terms = 0.0;
    double denormal = 0.0;
    for (int64_t j = 0; j < pair.rank; ++j) {
      const double b = std::fabs(sub_branch_b(pair, first_row + row, j));
      terms += b * sub_branch[j];
      denormal += (b + 1.0) * static_cast<double>(tile.cols + 1) * kDenormal;
    }
    return gamma(depth + 1.0 + sub_branch_roundings(pair, tile.cols)) * terms + denormal;
  }
};

// The steps of one token's blocks as panels round them.
void panel_steps(const LutPanelKernels& panels, const float* x, int64_t cols, float* steps) {
  for (int64_t k = 0; k < cols; k += panels.block) {
    const int64_t end = lut_min(cols, k + panels.block);
    float largest = 0.0f;
    for (int64_t i = k; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
    for (int64_t i = k; i < end; i += kLutBlock) steps[i / kLutBlock] = largest / panels.steps;
  }
}

// reach[j] = sum over columns of |a[j,k]| |x[k]|.
void sub_branch_reach(const PackedView& weights, const float* x, double* reach) {
  const int64_t cols = weights.layout.cols;
  for (int64_t j = 0; j < weights.sub_branch.rank; ++j) {
    reach[j] = 0.0;
    for (int64_t k = 0; k < cols; ++k)
      reach[j] += std::fabs(sub_branch_a(weights.sub_branch, j, k, cols) * static_cast<double>(x[k]));
  }
}

float rounded_up(double value) {
  const float nearest = static_cast<float>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, INFINITY) : nearest;
}

}  // namespace

Status lut_gemm_error_bound_with(const LutGemmKernels& kernels, Context& context, const PackedView& weights,
                                 const TensorView& x, const TensorView& bound, LutOptions options) {
  LUTRA_TRY(check_activations(kernels, {&weights, 1}, x, options));
  LUTRA_TRY(check_result(weights, x.rows(), bound));
  LUTRA_TRY(require_apart(bound, x, "bound may not overlap x"));
  const PackedLayout& layout = weights.layout;
  const int64_t tokens = x.rows();
  if (tokens == 0) return ok_status();
  const LutMode lut_mode = static_cast<LutMode>(options.mode);
  const LutPanelKernels* panels = lut_panels(kernels, layout, tokens, options);
  LutRounding rounding = kernels.rounding[lut_mode];
  if (panels) rounding = panels->steps > 0.0f ? LutRounding::kActivations : LutRounding::kNothing;
  const bool tables = !panels && rounding != LutRounding::kNothing;
  const LutTableSpace space(kernels, lut_mode, layout.cols, tables ? tokens : 0);
  const int64_t blocks = ceil_div(layout.cols, kLutBlock);
  const size_t step_bytes = rounding == LutRounding::kNothing || tables ? 0 : static_cast<size_t>(tokens * blocks * 4);
  const int64_t rank = weights.sub_branch.rank;
  const size_t reach_bytes = static_cast<size_t>(round_up(tokens * rank * 8, AlignedBuffer::kAlignment));
  const size_t bytes = reach_bytes + space.bytes() + step_bytes;
  auto* reach = static_cast<double*>(context.scratch(bytes));
  if (!reach && bytes > 0) return out_of_memory(static_cast<int64_t>(bytes));
  uint8_t* scratch = reinterpret_cast<uint8_t*>(reach) + reach_bytes;
  const bool reached = context.parallel(rank > 0 ? tokens : 0, [&](int64_t token) {
    sub_branch_reach(weights, x.as<const float>() + token * layout.cols, reach + token * rank);
  });
  if (!reached) return finished(false);
  const auto build = [&](int64_t part) {
    build_lut_table_part(kernels, lut_mode, layout, x.as<const float>(), space, scratch, part);
  };
  if (tables && !context.parallel(lut_table_parts(space, tokens), build)) return finished(false);
  float* steps = reinterpret_cast<float*>(scratch);
  if (step_bytes > 0)
    for (int64_t token = 0; token < tokens; ++token)
      panel_steps(*panels, x.as<const float>() + token * layout.cols, layout.cols, steps + token * blocks);
  const bool done = context.parallel(layout.tiles(), [&](int64_t t) {
    const LutTile tile = lut_tile(weights, t);
    for (int64_t token = 0; token < tokens; ++token) {
      const float* token_steps = tables ? space.of(scratch, token).steps : steps + token * blocks;
      const double* token_reach = rank > 0 ? reach + token * rank : nullptr;
      const RowBound row_bound{tile,
                               rounding,
                               token_steps,
                               panels,
                               roundings(tile, panels),
                               weights,
                               token_reach,
                               t * PackedLayout::kTileRows};
      const float* source = x.as<const float>() + token * layout.cols;
      for (int64_t row = 0; row < tile.rows; ++row)
        bound.as<float>()[token * layout.rows + t * PackedLayout::kTileRows + row] =
            rounded_up(row_bound.of(row, source));
    }
  });
  return finished(done);
}

Status lut_gemm_error_bound(Context& context, const PackedView& weights, const TensorView& x, const TensorView& bound,
                            LutOptions options) {
  return lut_gemm_error_bound_with(lut_gemm_kernels(weights.layout.bits), context, weights, x, bound, options);
}

}  // namespace lutra
