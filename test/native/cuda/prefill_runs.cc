#include "prefill_runs.h"

#include "cuda/lut_gemm/prefill_activations.h"
#include "cuda/lut_gemm/prefill_kernel.h"

namespace lutra::test {

using namespace lutra::cuda;

namespace {

constexpr int kSharedBytes = 99 * 1024;  // of a block on sm_86

template <typename Element, int kBits, bool kPlanes>
std::string run_block(const PrefillArguments& args, HostLaunch launch) {
  const auto go = [&](auto columns) {
    launch.blocks = static_cast<int>(prefill_blocks(args));
    launch.shared_bytes = static_cast<size_t>(prefill_shared_bytes(kBits, columns(), args.stages));
    return run_grid(launch, [&](uint8_t* shared) {
      PrefillBlock<Element, kBits, kPlanes, prefill_column_tiles(columns())>::run(args, shared);
    });
  };
  if constexpr (!kPlanes)
    if (args.block_columns == 128) return go(std::integral_constant<int, 128>());
  return go(std::integral_constant<int, 64>());
}

template <typename Element>
std::string run_product(const PrefillArguments& args, const PackedLayout& layout, const HostLaunch& launch) {
  const auto go = [&](auto bits) {
    return layout.kind == WeightKind::kPlanes ? run_block<Element, bits(), true>(args, launch)
                                              : run_block<Element, bits(), false>(args, launch);
  };
  if (layout.bits == 2) return go(std::integral_constant<int, 2>());
  if (layout.bits == 3) return go(std::integral_constant<int, 3>());
  return go(std::integral_constant<int, 4>());
}

// x in its order, A x, and the product.
template <typename Element>
std::string run_launches(const PrefillArguments& args, const PackedLayout& layout, HostLaunch launch) {
  launch.blocks = static_cast<int>(prefill_layout_blocks(args));
  std::string wrong = run_grid(launch, [&](uint8_t*) { lay_out_activations<Element>(args); });
  if (wrong.empty() && args.product.branch.rank > 0) {
    launch.blocks = static_cast<int>(prefill_branch_blocks(args));
    launch.shared_bytes = kBranchShared;
    wrong = run_grid(launch, [&](uint8_t* shared) { RankBlock<Element>::run(args, shared); });
  }
  return wrong.empty() ? run_product<Element>(args, layout, launch) : wrong;
}

}  // namespace

std::string run_prefill(DecodeOperands& operands, const PrefillRun& run, std::vector<float>* result) {
  const PackedView view = operands.logical().view();
  const PackedLayout& layout = view.layout;
  const int tokens = static_cast<int>(operands.problem().tokens);
  const int64_t rank = view.sub_branch.rank;
  PrefillPlan plan = plan_prefill(layout, rank, tokens, run.parts, {run.slots, kSharedBytes});
  if (run.splits) plan.splits = run.splits;
  if (run.stages) plan.stages = run.stages;
  if (run.block_columns) {
    plan.block_columns = run.block_columns;
    plan.column_blocks = static_cast<int32_t>(ceil_div(tokens, run.block_columns / run.parts));
  }
  PrefillArguments args;
  const Status status =
      prefill_arguments(layout, view.sub_branch, plan, tokens, run.x_dtype, run.y_dtype, run.parts, &args);
  if (!status.ok()) return status.what;
  const size_t outputs = static_cast<size_t>(tokens * layout.rows);
  const size_t tiles = static_cast<size_t>(prefill_column_tiles_of(args));
  Guarded<uint8_t> y(outputs * dtype_bytes(run.y_dtype));
  Guarded<float> partials(plan.splits > 1 ? static_cast<size_t>(plan.splits) * outputs : 0);
  Guarded<uint32_t> x_fragments(static_cast<size_t>(fragment_units(layout)) * tiles * kUnitTileWords);
  Guarded<uint32_t> rank_fragments(tiles * static_cast<size_t>(args.rank_steps) * kRankParts * 64);
  std::vector<uint32_t> counters(static_cast<size_t>(plan.row_blocks) * static_cast<size_t>(plan.column_blocks), 0);
  DecodeArguments& product = args.product;
  product.codes = operands.fragments().data();
  product.scales = view.scales;
  product.offsets = view.offsets;
  product.x = operands.x().data();
  product.y = y.data();
  product.partials = partials.data();
  product.counters = counters.data();
  product.branch.a = view.sub_branch.a;
  product.branch.b = view.sub_branch.b;
  product.branch.a_scales = view.sub_branch.a_scales;
  product.branch.b_scales = view.sub_branch.b_scales;
  args.x_fragments = x_fragments.data();
  args.rank_fragments = rank_fragments.data();
  HostLaunch launch;
  launch.threads = kPrefillThreads;
  launch.resident = run.resident;
  launch.seed = run.seed;
  const std::string wrong = run.x_dtype == Dtype::kF16 ? run_launches<HalfElement>(args, layout, launch)
                                                       : run_launches<BFloat16Element>(args, layout, launch);
  if (!wrong.empty()) return wrong;
  for (uint32_t counter : counters)
    if (counter != 0) return "a counter is not zero after the launch";
  *result = stored_floats(y.data(), outputs, run.y_dtype);
  return "";
}

}  // namespace lutra::test
