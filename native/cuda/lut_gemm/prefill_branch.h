// FBQuant's sub-branch for many tokens, on the matrix unit: t = A x before the product, B t behind its last unit.
//
// Numbers of A, B and t become bf16 parts whose products are exact (f16 is two parts, t three); A and x of one type of
// the matrix unit are multiplied as they are.
#pragma once

#include <type_traits>

#include "cuda/lut_gemm/group_values.h"
#include "cuda/lut_gemm/matrix_element.h"
#include "cuda/lut_gemm/prefill.h"
#include "cuda/lut_gemm/stored.h"

namespace lutra::cuda {

constexpr int kBranchColumns = 8 * kBranchTiles;
// Sums of 8 warps, [warp][rank][column].
constexpr int kBranchShared = kPrefillWarps * kStepCols * kBranchColumns * 4;

// Operand A of a step: rows g and g + 8, four numbers each (fragments.h), cut to part `part` of `parts`.
template <typename ToBits>
LUTRA_DEVICE void operand_of(const float (&rows)[2][4], ToBits&& to_bits, uint32_t (&a)[4]) {
  LUTRA_UNROLL
  for (int r = 0; r < 4; ++r) a[r] = to_bits(rows[r % 2][r / 2 * 2]) | to_bits(rows[r % 2][r / 2 * 2 + 1]) << 16;
}

// Two f16 numbers as part `part` of two bf16 numbers each.
LUTRA_DEVICE uint32_t halves_part(uint32_t two, int part) {
  return bfloat16_part(float_of_half(two & 0xffffu), part, 2) | bfloat16_part(float_of_half(two >> 16), part, 2) << 16;
}

template <typename Element>
class RankBlock {
 public:
  // Ranks of step block % rank_steps, column tiles from kBranchTiles * (block / rank_steps) on.
  LUTRA_DEVICE static void run(const PrefillArguments& args, uint8_t* shared) {
    RankBlock block(args);
    for (int unit = block.warp_; unit < args.product.units; unit += kPrefillWarps) block.multiply_unit(unit);
    block.store(reinterpret_cast<float*>(shared));
  }

 private:
  static constexpr bool kHalf = std::is_same_v<Element, HalfElement>;

  LUTRA_DEVICE explicit RankBlock(const PrefillArguments& args)
      : args_(args),
        lane_(thread_index() % kWarp),
        warp_(thread_index() / kWarp),
        step_(block_index() % args.rank_steps),
        tile_(block_index() / args.rank_steps * kBranchTiles) {
    LUTRA_UNROLL
    for (int n = 0; n < kBranchTiles; ++n) LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) sums_[n][i] = 0.0f;
  }

  LUTRA_DEVICE void multiply_unit(int unit) {
    const int64_t place = unit * prefill_column_tiles_of(args_) + tile_;
    const uint32_t* const x = args_.x_fragments + place * kUnitTileWords;
    LUTRA_ROLLED
    for (int step = 0; step < kUnitSteps; ++step) {
      Words2 columns[kBranchTiles];
      LUTRA_UNROLL
      for (int n = 0; n < kBranchTiles; ++n)
        columns[n] = load2(x + n * kUnitTileWords + step / 2 * 4 * kWarp + lane_ * 4 + step % 2 * 2);
      multiply_step(static_cast<int64_t>(unit) * kUnitCols + step * kStepCols + lane_ % 4 * 4, columns);
    }
  }

  LUTRA_DEVICE void multiply_step(int64_t k, const Words2 (&columns)[kBranchTiles]) {
    const BranchArguments& branch = args_.product.branch;
    const int64_t cols = args_.product.cols;
    float rows[2][4] = {};
    LUTRA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int rank = step_ * kStepCols + lane_ / 4 + 8 * h;
      if (rank < branch.rank) load_four(branch.a, rank * cols + k, cols - k, branch.dtype, rows[h]);
    }
    uint32_t a[4];
    if (kHalf && branch.dtype == kStoredBF16) {
      operand_of(
          rows, [](float v) { return bfloat16_of(v); }, a);
      LUTRA_UNROLL
      for (int n = 0; n < kBranchTiles; ++n) LUTRA_UNROLL
      for (int part = 0; part < 2; ++part) {
        const uint32_t b[2] = {halves_part(columns[n].w[0], part), halves_part(columns[n].w[1], part)};
        mma_bf16(sums_[n], a, b);
      }
      return;
    }
    const int parts = !kHalf && branch.dtype == kStoredF16 ? 2 : 1;
    for (int part = 0; part < parts; ++part) {
      operand_of(
          rows, [&](float v) { return kHalf ? half_of(v) : bfloat16_part(v, part, parts); }, a);
      LUTRA_UNROLL
      for (int n = 0; n < kBranchTiles; ++n) Element::multiply(sums_[n], a, columns[n].w);
    }
  }

  // Adds the warps' sums in their order and writes t as operand B.
  LUTRA_DEVICE void store(float* sums) const {
    LUTRA_UNROLL
    for (int n = 0; n < kBranchTiles; ++n) LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int rank = lane_ / 4 + i / 2 * 8;
      const int column = 8 * n + lane_ % 4 * 2 + i % 2;
      sums[(warp_ * kStepCols + rank) * kBranchColumns + column] = sums_[n][i];
    }
    sync_block();
    for (int i = thread_index(); i < kStepCols / 2 * kBranchColumns; i += kPrefillThreads) {
      const int column = i % kBranchColumns;
      const int two = i / kBranchColumns;  // ranks of the step
      const float t[2] = {total(sums, 2 * two, column), total(sums, 2 * two + 1, column)};
      uint32_t* const to = args_.rank_fragments +
                           ((tile_ + column / 8) * args_.rank_steps + step_) * static_cast<int64_t>(kRankParts * 64) +
                           (column % 8 * 4 + two / 2) * 2 + two % 2;
      LUTRA_UNROLL
      for (int part = 0; part < kRankParts; ++part)
        to[part * 64] = bfloat16_part(t[0], part, kRankParts) | bfloat16_part(t[1], part, kRankParts) << 16;
    }
  }

  LUTRA_DEVICE float total(const float* sums, int rank, int column) const {
    const BranchArguments& branch = args_.product.branch;
    float sum = 0.0f;
    for (int warp = 0; warp < kPrefillWarps; ++warp) sum += sums[(warp * kStepCols + rank) * kBranchColumns + column];
    const int row = step_ * kStepCols + rank;
    return branch.dtype == kStoredI8 && row < branch.rank ? sum * load(branch.a_scales + row) : sum;
  }

  const PrefillArguments& args_;
  const int lane_;
  const int warp_;
  const int step_;
  const int64_t tile_;
  float sums_[kBranchTiles][4];
};

// totals += B t for the rows of a warp and its column tiles from `tile` on. sums: zero before and of no use after.
template <int kColumnTiles, int kSums>
LUTRA_DEVICE void add_rank_products(const PrefillArguments& args, const WarpRows& rows, int64_t tile,
                                    float (&sums)[kWarpRowTiles][kColumnTiles][kSums][4],
                                    float (&totals)[kWarpRowTiles][kColumnTiles][4]) {
  const BranchArguments& branch = args.product.branch;
  const int lane = thread_index() % kWarp;
  const auto row_of = [&](int r, int h) {
    return static_cast<int64_t>(rows.first) + rows.row + (r == 0 ? 0 : rows.next_tile) + 8 * h;
  };
  const int parts = branch.dtype == kStoredF16 ? 2 : 1;
  LUTRA_ROLLED
  for (int step = 0; step < args.rank_steps; ++step) {
    const int rank = step * kStepCols + lane % 4 * 4;
    LUTRA_UNROLL
    for (int r = 0; r < kWarpRowTiles; ++r) {
      float b[2][4] = {};
      LUTRA_UNROLL
      for (int h = 0; h < 2; ++h)
        if (row_of(r, h) < args.product.rows)
          load_four(branch.b, row_of(r, h) * branch.rank + rank, branch.rank - rank, branch.dtype, b[h]);
      LUTRA_ROLLED
      for (int product = 0; product < kRankParts * parts; ++product) {
        const int part = product / kRankParts;
        const int t_part = product % kRankParts;
        if (part + t_part == kRankParts) continue;  // under the last bits of the sum
        uint32_t a[4];
        operand_of(
            b, [&](float v) { return bfloat16_part(v, part, parts); }, a);
        LUTRA_UNROLL
        for (int n = 0; n < kColumnTiles; ++n) {
          const int64_t place = ((tile + n) * args.rank_steps + step) * kRankParts + t_part;
          const Words2 t = load2(args.rank_fragments + place * 64 + lane * 2);
          mma_bf16(sums[r][n][0], a, t.w);
        }
      }
    }
  }
  LUTRA_UNROLL
  for (int r = 0; r < kWarpRowTiles; ++r) LUTRA_UNROLL
  for (int h = 0; h < 2; ++h) {
    const bool scaled = branch.dtype == kStoredI8 && row_of(r, h) < args.product.rows;
    const float scale = scaled ? load(branch.b_scales + row_of(r, h)) : 1.0f;
    LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) LUTRA_UNROLL
    for (int i = 0; i < 2; ++i)
      totals[r][n][2 * h + i] = multiply_add(scale, sums[r][n][0][2 * h + i], totals[r][n][2 * h + i]);
  }
}

}  // namespace lutra::cuda
