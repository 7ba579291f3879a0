// The decode kernel: what a block does for one range of rows and one range of columns (decode.h says how they are cut).
//
// Weights are the matrix unit's A (16 rows a tile), x its B (8 columns a tile). Each warp streams the codes of its own
// rows from memory, one unit ahead of what it multiplies and past the barriers that x needs; x is shared by the block.
#pragma once

#include "cuda/lut_gemm/activations.h"
#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/decode_join.h"
#include "cuda/lut_gemm/fragments.h"
#include "cuda/lut_gemm/group_values.h"
#include "cuda/lut_gemm/matrix_element.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/lut_gemm/sub_branch_kernel.h"

namespace lutra::cuda {

// Where a warp is between two folds, in steps. A fold scales what the matrix unit summed up and adds it to the row's
// total: at the end of each group and of each kFoldUnits units counted from the start of the block's range.
struct FoldSteps {
  int group_left;
  int window_left;

  // Goes on by at most `most` steps, none past the next fold.
  LUTRA_DEVICE int advance(int most) {
    const int run = group_left < window_left ? group_left : window_left;
    const int taken = run < most ? run : most;
    group_left -= taken;
    window_left -= taken;
    return taken;
  }
  // True where a fold belongs; afterwards the next group or window has begun.
  LUTRA_DEVICE bool folds(int group_steps, bool* group_ends) {
    *group_ends = group_left == 0;
    const bool window_ends = window_left == 0;
    if (*group_ends) group_left = group_steps;
    if (window_ends) window_left = kFoldUnits * kUnitSteps;
    return *group_ends || window_ends;
  }
};

template <typename Element, int kBits, bool kPlanes, int kColumnTiles>
class DecodeBlock {
 public:
  static constexpr int kRowTiles = decode_row_tiles(kPlanes);
  static constexpr int kSums = kPlanes ? kBits : 1;  // accumulators of a tile: planes keep their own
  static constexpr int kLaneWords = unit_lane_words(kBits);
  static constexpr int kPitch = decode_pitch(kColumnTiles);

  LUTRA_DEVICE static void run(const DecodeArguments& args, uint8_t* shared) {
    if (args.branch.rank > 0) take_shares(args, reinterpret_cast<uint32_t*>(shared), 1);
    const int row_blocks = grid_blocks() / args.splits;
    const int row_block = block_index() % row_blocks;
    const int split = block_index() / row_blocks;
    DecodeBlock block(args, shared, row_block);
    block.multiply(units_before(args.units, args.splits, split), units_before(args.units, args.splits, split + 1));
    block.store(row_block, split);
  }

 private:
  LUTRA_DEVICE DecodeBlock(const DecodeArguments& args, uint8_t* shared, int row_block)
      : args_(args), shared_(shared), lane_(thread_index() % kWarp), warp_(thread_index() / kWarp) {
    // Warps past the last row repeat the last tiles; nothing of theirs is stored.
    const int tiles = row_tiles_of(args);
    int tile = (row_block * kDecodeWarps + warp_) * kRowTiles;
    if (tile >= tiles) tile = (tiles - 1) / kRowTiles * kRowTiles;
    codes_ = args.codes + static_cast<int64_t>(tile) * args.units * unit_words(kBits);
    rows_ = warp_rows(tile, tiles, lane_);
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) totals_[r][n][i] = 0.0f;
    clear_sums();
  }

  LUTRA_DEVICE void clear_sums() {
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) LUTRA_UNROLL
    for (int p = 0; p < kSums; ++p) LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) sums_[r][n][p][i] = 0.0f;
  }

  LUTRA_DEVICE void fetch_codes(uint32_t (&words)[kRowTiles][kLaneWords], int unit) const {
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      const int64_t units = unit + (r == 0 || rows_.next_tile == 0 ? 0 : static_cast<int64_t>(args_.units));
      const uint32_t* const from = codes_ + units * unit_words(kBits);
      const Words4 first = load_once4(from + lane_ * 4);
      LUTRA_UNROLL
      for (int i = 0; i < 4; ++i) words[r][i] = first.w[i];
      if constexpr (kBits == 3) {
        const Words2 rest = load_once2(from + 4 * kWarp + lane_ * 2);
        words[r][4] = rest.w[0];
        words[r][5] = rest.w[1];
      }
      if constexpr (kBits == 4) {
        const Words4 rest = load_once4(from + 4 * kWarp + lane_ * 4);
        LUTRA_UNROLL
        for (int i = 0; i < 4; ++i) words[r][4 + i] = rest.w[i];
      }
    }
  }

  // Units [first, end). Codes of two units are in registers: one that is multiplied, one on its way.
  LUTRA_DEVICE void multiply(int first, int end) {
    constexpr int kChunk = decode_chunk_units(kColumnTiles);
    if (first < end) fetch_codes(words_[0], first);
    if (first + 1 < end) fetch_codes(words_[1], first + 1);
    group_ = first * kUnitSteps / args_.group_steps;
    values_.fetch(args_, rows_, group_);
    FoldSteps steps = {(group_ + 1) * args_.group_steps - first * kUnitSteps, kFoldUnits * kUnitSteps};
    for (int chunk = first; chunk < end; chunk += kChunk) {
      const int count = end - chunk < kChunk ? end - chunk : kChunk;
      sync_block();  // the chunk before is read
      stage_activations<Element, kColumnTiles>(args_, shared_, chunk, count);
      sync_block();
      sum_activations<Element, kColumnTiles>(args_, shared_, first, chunk, count, end);
      sync_block();
      for (int u = 0; u < count; u += 2) {
        multiply_unit(words_[0], steps, u, chunk + u + 1 == end);
        if (chunk + u + 2 < end) fetch_codes(words_[0], chunk + u + 2);
        if (u + 1 == count) break;
        multiply_unit(words_[1], steps, u + 1, chunk + u + 2 == end);
        if (chunk + u + 3 < end) fetch_codes(words_[1], chunk + u + 3);
      }
    }
  }

  LUTRA_DEVICE void multiply_unit(const uint32_t (&words)[kRowTiles][kLaneWords], FoldSteps& steps, int unit_of_chunk,
                                  bool last) {
    for (int at = 0; at < kUnitSteps;) {
      const int end = at + steps.advance(kUnitSteps - at);
      if (end - at == kUnitSteps) {
        LUTRA_UNROLL
        for (int s = 0; s < kUnitSteps; ++s) multiply_step(words, s, unit_of_chunk);
      } else {
        // Groups that end within a unit.
        LUTRA_UNROLL
        for (int s = 0; s < kUnitSteps; ++s)
          if (s >= at && s < end) multiply_step(words, s, unit_of_chunk);
      }
      at = end;
      bool group_ends;
      if (steps.folds(args_.group_steps, &group_ends) || (last && at == kUnitSteps))
        fold(unit_of_chunk * kUnitSteps + at - 1, group_ends);
    }
  }

  // The lane's rows of B: columns 4t to 4t + 3 of the step, of token and part lane / 4.
  LUTRA_DEVICE void fetch_activations(uint32_t (&x)[kColumnTiles][2], int step) const {
    LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = 8 * n + lane_ / 4;
      x[n][0] = x[n][1] = 0;
      if (column < args_.tokens * args_.parts) {
        const Words2 two = *reinterpret_cast<const Words2*>(shared_ + column * kPitch + step * 32 + lane_ % 4 * 8);
        x[n][0] = two.w[0];
        x[n][1] = two.w[1];
      }
    }
  }

  LUTRA_DEVICE void multiply_step(const uint32_t (&words)[kRowTiles][kLaneWords], int s, int unit_of_chunk) {
    constexpr int kTarget = field_target<Element, kBits, kPlanes>();
    uint32_t x[kColumnTiles][2];
    fetch_activations(x, unit_of_chunk * kUnitSteps + s);
    LUTRA_UNROLL
    for (int tile = 0; tile < kRowTiles; ++tile) {
      uint32_t fields[4];
      LUTRA_UNROLL
      for (int r = 0; r < 4; ++r) fields[r] = pair_field<kBits>(words[tile], 4 * s + r, kTarget);
      LUTRA_UNROLL
      for (int p = 0; p < kSums; ++p) {
        const uint32_t mask = kPlanes ? 1u << (kTarget + p) : ((1u << kBits) - 1) << kTarget;
        const uint32_t magic = kPlanes ? plane_magic<Element>(kBits - 1 - p) : Element::kOne;
        uint32_t a[4];
        LUTRA_UNROLL
        for (int r = 0; r < 4; ++r) a[r] = (fields[r] & both_halves(mask)) | both_halves(magic);
        LUTRA_UNROLL
        for (int n = 0; n < kColumnTiles; ++n) Element::multiply(sums_[tile][n][p], a, x[n]);
      }
    }
  }

  // totals += scales of the group * (sums without what the exponents added) + offset * sum of x.
  LUTRA_DEVICE void fold(int step, bool group_ends) {
    LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) {
      const float* const line = reinterpret_cast<const float*>(shared_ + decode_sums_at(kColumnTiles)) +
                                step * 8 * kColumnTiles + 8 * n + lane_ % 4 * 2;
      const float x_sums[2] = {line[0], line[1]};
      LUTRA_UNROLL
      for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
      for (int h = 0; h < 2; ++h) {
        float scales[kSums];
        LUTRA_UNROLL
        for (int p = 0; p < kSums; ++p) scales[p] = stored_number(values_.scales[r][h][p], args_.scale_dtype);
        const float offset = offset_of<kBits, kPlanes>(args_, scales, values_.offsets[r][h]);
        LUTRA_UNROLL
        for (int i = 0; i < 2; ++i)
          fold_sums<kBits, kPlanes>(scales, offset, x_sums[i], sums_[r][n], 2 * h + i, totals_[r][n][2 * h + i]);
      }
    }
    clear_sums();
    if (group_ends) {
      if (group_ + 1 < args_.groups) ++group_;
      values_.fetch(args_, rows_, group_);
    }
  }

  // Totals to shared memory, [column][row of the block], from where the block joins them row by row.
  LUTRA_DEVICE void store(int row_block, int split) {
    constexpr int kRows = decode_block_rows(kRowTiles);
    float* const tile = reinterpret_cast<float*>(shared_);
    sync_block();  // x is read
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = (warp_ * kRowTiles + r) * kTileRows + lane_ / 4 + i / 2 * 8;
      const int column = 8 * n + lane_ % 4 * 2 + i % 2;
      if (column < args_.tokens * args_.parts) tile[column * kRows + row] = totals_[r][n][i];
    }
    sync_block();
    join_rows<kRows>(args_, shared_, row_block, split);
  }

  const DecodeArguments& args_;
  uint8_t* const shared_;
  const int lane_;
  const int warp_;
  const uint32_t* codes_;
  WarpRows rows_;
  int group_ = 0;
  uint32_t words_[2][kRowTiles][kLaneWords];
  GroupValues<kBits, kPlanes, kRowTiles> values_;
  float sums_[kRowTiles][kColumnTiles][kSums][4];
  float totals_[kRowTiles][kColumnTiles][4];
};

}  // namespace lutra::cuda
