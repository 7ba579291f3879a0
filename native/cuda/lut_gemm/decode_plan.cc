#include <algorithm>

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/fragments.h"

namespace lutra::cuda {

namespace {

// Units that the busiest place of the device goes through, in waves of blocks; what a block costs besides (filling its
// pipeline, x, its sums) counts as units, and so do the sums that the last block reads.
double modelled_units(int64_t row_blocks, int64_t units, int64_t splits, int slots) {
  constexpr double kBlockUnits = 3.0;
  constexpr double kJoinUnits = 0.25;
  const int64_t waves = ceil_div(row_blocks * splits, slots);
  const double longest = static_cast<double>(ceil_div(units, splits));
  const double join = splits > 1 ? kJoinUnits * static_cast<double>(splits) : 0.0;
  return static_cast<double>(waves) * (longest + kBlockUnits) + join;
}

}  // namespace

DecodePlan plan_decode(const PackedLayout& layout, int64_t rank, int slots) {
  const int64_t row_blocks = decode_row_blocks(layout.rows, 2);
  const int64_t units = fragment_units(layout);
  DecodePlan plan;
  double best = modelled_units(row_blocks, units, 1, slots);
  for (int64_t splits = 2; splits <= std::min<int64_t>(units, 32); ++splits) {
    const double cost = modelled_units(row_blocks, units, splits, slots);
    if (cost < best) {
      best = cost;
      plan.splits = static_cast<int32_t>(splits);
    }
  }
  if (rank > 0) {
    const int64_t rank_blocks = ceil_div(rank, kRankBlock);
    const int64_t most = std::min<int64_t>(row_blocks * plan.splits, slots);
    plan.k_shares = static_cast<int32_t>(std::clamp<int64_t>(most / rank_blocks, 1, std::min<int64_t>(units, 16)));
    plan.shares = static_cast<int32_t>(rank_blocks * plan.k_shares);
    plan.branch_floats = plan.k_shares * kMaxDecodeTokens * rank;
  }
  plan.counters = kFirstRowBlock + decode_row_blocks(layout.rows, 1);
  plan.partials_floats = plan.splits > 1 ? plan.splits * kMaxDecodeTokens * layout.rows : 0;
  return plan;
}

Status product_arguments(const PackedLayout& layout, const SubBranch& branch, int splits, int tokens, Dtype x_dtype,
                         Dtype y_dtype, int parts, DecodeArguments* arguments) {
  LUTRA_TRY(check_layout(layout));
  LUTRA_TRY(check_sub_branch(layout, branch));
  if (layout.bits < 2 || layout.bits > 4) return error(Code::kUnsupported, "no kernel has this width", layout.bits);
  const auto floating = [](Dtype d) { return d == Dtype::kF32 || d == Dtype::kF16 || d == Dtype::kBF16; };
  if (!floating(x_dtype) || !floating(y_dtype)) return error(Code::kDtype, "x and y are f32, f16 or bf16");
  if (parts < 1 || parts > 3 || (parts > 1 && x_dtype != Dtype::kF32))
    return error(Code::kOption, "only f32 has more than one part", parts);
  if (fragment_units(layout) > (int64_t{1} << 24) || layout.groups() > (int64_t{1} << 30))
    return error(Code::kShape, "more columns than a launch counts", layout.cols);
  DecodeArguments& a = *arguments;
  a = {};
  a.rows = layout.rows;
  a.cols = layout.cols;
  a.units = static_cast<int32_t>(fragment_units(layout));
  a.splits = splits;
  a.groups = static_cast<int32_t>(layout.groups());
  a.group_steps = a.groups == 1 ? a.units * kUnitSteps : static_cast<int32_t>(layout.group_size / kStepCols);
  a.tokens = tokens;
  a.parts = parts;
  a.x_dtype = static_cast<int32_t>(x_dtype);
  a.y_dtype = static_cast<int32_t>(y_dtype);
  a.scale_dtype = static_cast<int32_t>(layout.scale_dtype);
  a.offset_kind = static_cast<int32_t>(layout.offset_kind);
  a.offset_dtype = static_cast<int32_t>(layout.offset_kind == OffsetKind::kZeroCode ? Dtype::kU8 : layout.offset_dtype);
  a.branch.rank = static_cast<int32_t>(branch.rank);
  a.branch.dtype = static_cast<int32_t>(branch.dtype);
  return ok_status();
}

Status decode_arguments(const PackedLayout& layout, const SubBranch& branch, const DecodePlan& plan, int tokens,
                        Dtype x_dtype, Dtype y_dtype, int parts, DecodeArguments* arguments) {
  if (tokens < 1 || tokens > kMaxDecodeTokens) return error(Code::kShape, "tokens out of range", tokens, 16);
  LUTRA_TRY(product_arguments(layout, branch, plan.splits, tokens, x_dtype, y_dtype, parts, arguments));
  if (tokens * parts > 8 * kMaxColumnTiles) return error(Code::kShape, "tokens and parts together", tokens * parts, 32);
  arguments->branch.k_shares = plan.k_shares;
  arguments->branch.shares = branch.rank > 0 ? plan.shares : 0;
  return ok_status();
}

}  // namespace lutra::cuda
