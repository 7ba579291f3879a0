// One launch of the prefill kernel: y = W x, or W x + B (A x), for many tokens.
//
// Columns of the matrix unit are parts of tokens, as in decode.h. A first launch lays x out in the order in which the
// matrix unit takes it, with the sums that folds need; with a sub-branch a second one makes t = A x, cut into three
// bf16 parts. Then a block of 8 warps owns 128 rows, 64 or 128 columns and one of `splits` ranges of units. Codes and x
// come to shared memory a unit at a time, `stages` units deep; codes become operands in registers, exact ones, and the
// matrix unit's sums are scaled in fp32 where a group or a unit ends. B t is more of the same product, behind the last
// unit: no launch, and nothing written in between.
//
//   x_fragments     u32 [unit][column tile of 8][576 words]: words 0 to 511 are [pair of steps][lane][step of the
//                   pair][2], the operand B of a step (columns as in fragments.h); then f32 [step][column]: the sum of
//                   x over the steps up to this one since the last fold, where a fold follows
//   rank_fragments  u32 [column tile][rank step of 16][part of t][lane][2]
//
// Columns of a block begin with a token of their own (128 columns hold 42 tokens of three parts, and two zeros).
// Sums of ranges meet as in decode.h: bits depend on the shapes alone.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/fragments.h"

namespace lutra::cuda {

constexpr int kPrefillThreads = 256;
constexpr int kPrefillWarps = kPrefillThreads / 32;
constexpr int kPrefillRows = 128;  // of a block: 4 warps of two tiles, by two warps of columns
constexpr int kWarpRowTiles = 2;
constexpr int kPrefillRowGroup = 8;  // row ranges whose blocks run side by side, so that they share x in L2
constexpr int kMaxPrefillTokens = LUTRA_CUDA_MAX_TOKENS;
constexpr int kRankParts = 3;
constexpr int kBranchTiles = 8;  // column tiles that a block of A x takes

constexpr int kOperandWords = kUnitSteps * 2 * 32;
constexpr int kUnitTileWords = kOperandWords + kUnitSteps * 8;

struct PrefillArguments {
  DecodeArguments product;  // its counters, partials and splits are those of this launch; branch.sums is not used
  uint32_t* x_fragments = nullptr;
  uint32_t* rank_fragments = nullptr;
  int32_t row_blocks = 0;
  int32_t column_blocks = 0;
  int32_t block_columns = 0;  // 64 or 128
  int32_t block_tokens = 0;
  int32_t rank_steps = 0;
  int32_t stages = 2;
};

// What a launch may take of a device.
struct PrefillDevice {
  int multiprocessors = 1;
  int shared_bytes = 0;  // of a block
};

struct PrefillPlan {
  int32_t block_columns = 64;
  int32_t column_blocks = 0;
  int32_t row_blocks = 0;
  int32_t splits = 1;
  int32_t stages = 2;
  int64_t counters = 0;  // u32
  int64_t partials_floats = 0;
  int64_t x_words = 0;
  int64_t rank_words = 0;
};

// Column tiles of a warp. Planes have accumulators of their own, which take the registers of more columns.
constexpr int prefill_column_tiles(int block_columns) { return block_columns / 16; }
constexpr int prefill_stage_bytes(int bits, int block_columns) {
  return kPrefillRows / kTileRows * unit_words(bits) * 4 + block_columns / 8 * kUnitTileWords * 4;
}
// Totals of a block, [column][rows and four], lie where the stages were.
constexpr int kTotalsPitch = kPrefillRows + 4;
constexpr int prefill_shared_bytes(int bits, int block_columns, int stages) {
  const int staged = stages * prefill_stage_bytes(bits, block_columns);
  const int totals = block_columns * kTotalsPitch * 4;
  return staged > totals ? staged : totals;
}
constexpr int64_t prefill_column_tiles_of(const PrefillArguments& args) {
  return static_cast<int64_t>(args.column_blocks) * args.block_columns / 8;
}
// Blocks of the three launches.
constexpr int64_t prefill_layout_blocks(const PrefillArguments& args) {
  return (prefill_column_tiles_of(args) * args.product.units + kPrefillWarps - 1) / kPrefillWarps;
}
constexpr int64_t prefill_branch_blocks(const PrefillArguments& args) {
  return prefill_column_tiles_of(args) / kBranchTiles * args.rank_steps;
}
constexpr int64_t prefill_blocks(const PrefillArguments& args) {
  return static_cast<int64_t>(args.row_blocks) * args.column_blocks * args.product.splits;
}

// How a shape is cut: a matter of the shape and the kind of device.
PrefillPlan plan_prefill(const PackedLayout& layout, int64_t rank, int tokens, int parts, const PrefillDevice& device);

// Fills everything of the launches but the memory: codes, scales, offsets, x, y, partials, counters, branch.a to
// b_scales, x_fragments, rank_fragments.
Status prefill_arguments(const PackedLayout& layout, const SubBranch& branch, const PrefillPlan& plan, int tokens,
                         Dtype x_dtype, Dtype y_dtype, int parts, PrefillArguments* arguments);

}  // namespace lutra::cuda
