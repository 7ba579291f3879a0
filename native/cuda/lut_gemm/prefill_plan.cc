#include <algorithm>

#include "cuda/lut_gemm/prefill.h"

namespace lutra::cuda {

namespace {

constexpr int kMostStages = 4;

// Time of the busiest multiprocessor, in units of 128 columns of tokens: a block of 64 costs a little over half of one
// of 128, and each block fills its pipeline and stores its sums.
double modelled_time(int64_t blocks, int64_t units, int64_t splits, int block_columns, int multiprocessors) {
  constexpr double kBlockUnits = 4.0;
  constexpr double kJoinUnits = 1.0;
  const double unit = block_columns == 128 ? 1.0 : 0.55;
  const int64_t waves = ceil_div(blocks * splits, multiprocessors);
  const double join = splits > 1 ? kJoinUnits * static_cast<double>(splits) : 0.0;
  return unit * (static_cast<double>(waves) * (static_cast<double>(ceil_div(units, splits)) + kBlockUnits) + join);
}

}  // namespace

PrefillPlan plan_prefill(const PackedLayout& layout, int64_t rank, int tokens, int parts, const PrefillDevice& device) {
  const int64_t units = fragment_units(layout);
  const int64_t row_blocks = ceil_div(layout.rows, kPrefillRows);
  const auto blocks_of = [&](int columns) { return ceil_div(tokens, columns / parts); };
  PrefillPlan plan;
  double best = -1;
  for (int columns : {64, 128}) {
    if (columns == 128 && layout.kind == WeightKind::kPlanes) continue;
    const int64_t blocks = row_blocks * blocks_of(columns);
    for (int64_t splits = 1; splits <= std::min<int64_t>(units, 16); ++splits) {
      if (splits > 1 && blocks * splits > 4 * device.multiprocessors) break;  // what the sums may take of memory
      const double time = modelled_time(blocks, units, splits, columns, device.multiprocessors);
      if (best >= 0 && time >= best) continue;
      best = time;
      plan.block_columns = columns;
      plan.splits = static_cast<int32_t>(splits);
    }
  }
  plan.row_blocks = static_cast<int32_t>(row_blocks);
  plan.column_blocks = static_cast<int32_t>(blocks_of(plan.block_columns));
  const int fit = device.shared_bytes / prefill_stage_bytes(layout.bits, plan.block_columns);
  plan.stages = std::clamp(fit, 2, kMostStages);
  const int64_t tiles = static_cast<int64_t>(plan.column_blocks) * plan.block_columns / 8;
  plan.counters = row_blocks * plan.column_blocks;
  plan.partials_floats = plan.splits > 1 ? plan.splits * tokens * layout.rows : 0;
  plan.x_words = units * tiles * kUnitTileWords;
  plan.rank_words = tiles * ceil_div(rank, kStepCols) * kRankParts * 64;
  return plan;
}

Status prefill_arguments(const PackedLayout& layout, const SubBranch& branch, const PrefillPlan& plan, int tokens,
                         Dtype x_dtype, Dtype y_dtype, int parts, PrefillArguments* arguments) {
  if (tokens < 1 || tokens > kMaxPrefillTokens)
    return error(Code::kShape, "tokens out of range", tokens, kMaxPrefillTokens);
  PrefillArguments& a = *arguments;
  a = {};
  LUTRA_TRY(product_arguments(layout, branch, plan.splits, tokens, x_dtype, y_dtype, parts, &a.product));
  a.row_blocks = plan.row_blocks;
  a.column_blocks = plan.column_blocks;
  a.block_columns = plan.block_columns;
  a.block_tokens = plan.block_columns / parts;
  a.rank_steps = static_cast<int32_t>(ceil_div(branch.rank, kStepCols));
  a.stages = plan.stages;
  return ok_status();
}

}  // namespace lutra::cuda
