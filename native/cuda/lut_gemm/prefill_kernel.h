// The prefill kernel: what a block does for 128 rows, 64 or 128 columns and one range of units (prefill.h).
#pragma once

#include "cuda/lut_gemm/group_values.h"
#include "cuda/lut_gemm/matrix_element.h"
#include "cuda/lut_gemm/prefill.h"
#include "cuda/lut_gemm/prefill_branch.h"
#include "cuda/lut_gemm/prefill_join.h"

namespace lutra::cuda {

// kColumnTiles: of a warp; a block has two warps of columns.
template <typename Element, int kBits, bool kPlanes, int kColumnTiles>
class PrefillBlock {
 public:
  static constexpr int kRowTiles = kWarpRowTiles;
  static constexpr int kSums = kPlanes ? kBits : 1;
  static constexpr int kLaneWords = unit_lane_words(kBits);
  static constexpr int kPairWords = kBits == 3 ? 3 : kBits / 2;  // that pairs of steps go on by; 3 bits: two pairs
  // Scales are asked for a group ahead; four planes leave no registers for it.
  static constexpr bool kScalesAhead = kSums < 4;
  static constexpr int kColumns = 16 * kColumnTiles;
  static constexpr int kCodeWords = kPrefillRows / kTileRows * unit_words(kBits);
  static constexpr int kStageBytes = prefill_stage_bytes(kBits, kColumns);

  LUTRA_DEVICE static void run(const PrefillArguments& args, uint8_t* shared) {
    const PrefillPlace place = prefill_place(args, block_index());
    const DecodeArguments& product = args.product;
    PrefillBlock block(args, shared, place);
    block.multiply(units_before(product.units, product.splits, place.split),
                   units_before(product.units, product.splits, place.split + 1));
    if (product.branch.rank > 0 && place.split == 0) block.add_branch();
    block.store();
  }

 private:
  LUTRA_DEVICE PrefillBlock(const PrefillArguments& args, uint8_t* shared, const PrefillPlace& place)
      : args_(args), product_(args.product), shared_(shared), place_(place), lane_(thread_index() % kWarp) {
    const int warp = thread_index() / kWarp;
    row_warp_ = warp % 4;
    column_warp_ = warp / 4;
    tiles_ = row_tiles_of(product_);
    // Warps past the last row repeat the last tiles; nothing of theirs is stored.
    int tile = (place.row_block * 4 + row_warp_) * kRowTiles;
    if (tile >= tiles_) tile = (tiles_ - 1) / kRowTiles * kRowTiles;
    rows_ = warp_rows(tile, tiles_, lane_);
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

  // Starts the copies of a unit: codes [row tile][words of a unit], then x [column tile][576 words].
  LUTRA_DEVICE void copy_unit(int unit, uint8_t* stage) const {
    constexpr int kTileEights = unit_words(kBits) / 4;
    for (int i = thread_index(); i < kCodeWords / 4; i += kPrefillThreads) {
      const int tile = place_.row_block * (kPrefillRows / kTileRows) + i / kTileEights;
      const int64_t from = static_cast<int64_t>(tile < tiles_ ? tile : tiles_ - 1) * product_.units + unit;
      copy_async16(stage + i * 16, product_.codes + from * unit_words(kBits) + i % kTileEights * 4);
    }
    const int64_t tile = unit * prefill_column_tiles_of(args_) + place_.column_block * (kColumns / 8);
    const uint32_t* const x = args_.x_fragments + tile * kUnitTileWords;
    for (int i = thread_index(); i < kColumns / 8 * kUnitTileWords / 4; i += kPrefillThreads)
      copy_async16(stage + kCodeWords * 4 + i * 16, x + i * 4);
  }

  // Units [first, end). While one is multiplied, stages - 1 are on their way; every unit ends with one barrier.
  LUTRA_DEVICE void multiply(int first, int end) {
    const int ahead = args_.stages - 1;
    for (int u = 0; u < ahead; ++u) {
      if (first + u < end) copy_unit(first + u, shared_ + u * kStageBytes);
      commit_copies();
    }
    group_ = first * kUnitSteps / product_.group_steps;
    group_left_ = (group_ + 1) * product_.group_steps - first * kUnitSteps;
    if constexpr (kScalesAhead) values_.fetch(product_, rows_, group_);
    int stage = 0;
    int free_stage = ahead;
    for (int unit = first; unit < end; ++unit) {
      wait_copies(ahead - 1);
      sync_block();  // the unit is there, and the one before is read
      if (unit + ahead < end) copy_unit(unit + ahead, shared_ + free_stage * kStageBytes);
      commit_copies();
      multiply_unit(shared_ + stage * kStageBytes);
      stage = stage + 1 == args_.stages ? 0 : stage + 1;
      free_stage = free_stage + 1 == args_.stages ? 0 : free_stage + 1;
    }
  }

  LUTRA_DEVICE void read_codes(const uint8_t* stage) {
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      const uint32_t* const from =
          reinterpret_cast<const uint32_t*>(stage) + (row_warp_ * kRowTiles + r) * unit_words(kBits);
      const Words4 head = *reinterpret_cast<const Words4*>(from + lane_ * 4);
      LUTRA_UNROLL
      for (int i = 0; i < 4; ++i) words_[r][i] = head.w[i];
      if constexpr (kBits == 3) {
        const Words2 rest = *reinterpret_cast<const Words2*>(from + 4 * kWarp + lane_ * 2);
        words_[r][4] = rest.w[0];
        words_[r][5] = rest.w[1];
      }
      if constexpr (kBits == 4) {
        const Words4 rest = *reinterpret_cast<const Words4*>(from + 4 * kWarp + lane_ * 4);
        LUTRA_UNROLL
        for (int i = 0; i < 4; ++i) words_[r][4 + i] = rest.w[i];
      }
    }
  }

  // Two steps at a time. Groups of one step go through each pair twice, with the other step's weights zero.
  LUTRA_DEVICE void multiply_unit(const uint8_t* stage) {
    read_codes(stage);
    const uint32_t* const x =
        reinterpret_cast<const uint32_t*>(stage) + kCodeWords + column_warp_ * kColumnTiles * kUnitTileWords;
    const int advance = product_.group_steps == 1 ? 1 : 2;
    LUTRA_ROLLED
    for (int at = 0; at < kUnitSteps; at += advance) {
      const int pair = at / 2;
      if (kBits == 3 && pair % 2 == 1)
        multiply_pair<8>(x + pair * 4 * kWarp, at, advance);
      else
        multiply_pair<0>(x + pair * 4 * kWarp, at, advance);
      group_left_ -= advance;
      const bool group_ends = group_left_ == 0;
      const bool unit_ends = at + advance == kUnitSteps;
      if (group_ends || unit_ends) fold(x + kOperandWords + (at + advance - 1) * 8, group_ends);
      if ((at + advance) % (kBits == 3 ? 4 : 2) == 0) next_words();
    }
  }

  // Moves the words of the next pair of steps (3 bits: the next two) to the front: registers have no indices.
  LUTRA_DEVICE void next_words() {
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int i = 0; i + kPairWords < kLaneWords; ++i) words_[r][i] = words_[r][i + kPairWords];
  }

  // The steps of one pair that lie in [at, at + advance). kFirst: the pair's first pair of codes in words_.
  template <int kFirst>
  LUTRA_DEVICE void multiply_pair(const uint32_t* x, int at, int advance) {
    constexpr int kTarget = field_target<Element, kBits, kPlanes>();
    Words4 columns[kColumnTiles];
    LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n)
      columns[n] = *reinterpret_cast<const Words4*>(x + n * kUnitTileWords + lane_ * 4);
    LUTRA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint32_t live = advance == 2 || at % 2 == h ? 0xffffffffu : 0u;
      uint32_t fields[kRowTiles][4];
      LUTRA_UNROLL
      for (int tile = 0; tile < kRowTiles; ++tile) LUTRA_UNROLL
      for (int r = 0; r < 4; ++r) fields[tile][r] = pair_field<kBits>(words_[tile], kFirst + 4 * h + r, kTarget);
      LUTRA_UNROLL
      for (int p = 0; p < kSums; ++p) {
        const uint32_t mask = live & both_halves(kPlanes ? 1u << (kTarget + p) : ((1u << kBits) - 1) << kTarget);
        const uint32_t magic = live & both_halves(kPlanes ? plane_magic<Element>(kBits - 1 - p) : Element::kOne);
        uint32_t a[kRowTiles][4];
        LUTRA_UNROLL
        for (int tile = 0; tile < kRowTiles; ++tile) LUTRA_UNROLL
        for (int r = 0; r < 4; ++r) a[tile][r] = (fields[tile][r] & mask) | magic;
        LUTRA_UNROLL
        for (int n = 0; n < kColumnTiles; ++n) {
          const uint32_t b[2] = {columns[n].w[2 * h], columns[n].w[2 * h + 1]};
          LUTRA_UNROLL
          for (int tile = 0; tile < kRowTiles; ++tile) Element::multiply(sums_[tile][n][p], a[tile], b);
        }
      }
    }
  }

  LUTRA_DEVICE void fold(const uint32_t* x_sums, bool group_ends) {
    if constexpr (!kScalesAhead) values_.fetch(product_, rows_, group_);
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int h = 0; h < 2; ++h) {
      float scales[kSums];
      LUTRA_UNROLL
      for (int p = 0; p < kSums; ++p) scales[p] = stored_number(values_.scales[r][h][p], product_.scale_dtype);
      const float offset = offset_of<kBits, kPlanes>(product_, scales, values_.offsets[r][h]);
      LUTRA_UNROLL
      for (int n = 0; n < kColumnTiles; ++n) {
        const Words2 two = *reinterpret_cast<const Words2*>(x_sums + n * kUnitTileWords + lane_ % 4 * 2);
        LUTRA_UNROLL
        for (int i = 0; i < 2; ++i)
          fold_sums<kBits, kPlanes>(scales, offset, float_of(two.w[i]), sums_[r][n], 2 * h + i,
                                    totals_[r][n][2 * h + i]);
      }
    }
    clear_sums();
    if (!group_ends) return;
    group_left_ = product_.group_steps;
    if (group_ + 1 < product_.groups) ++group_;
    if constexpr (kScalesAhead) values_.fetch(product_, rows_, group_);
  }

  LUTRA_DEVICE void add_branch() {
    const int64_t tile = static_cast<int64_t>(place_.column_block) * (kColumns / 8) + column_warp_ * kColumnTiles;
    add_rank_products<kColumnTiles, kSums>(args_, rows_, tile, sums_, totals_);
  }

  // Totals to shared memory, [column][row of the block], from where the block joins them row by row.
  LUTRA_DEVICE void store() {
    float* const totals = reinterpret_cast<float*>(shared_);
    sync_block();  // the last unit is read
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = (row_warp_ * kRowTiles + r) * kTileRows + lane_ / 4 + i / 2 * 8;
      const int column = (column_warp_ * kColumnTiles + n) * 8 + lane_ % 4 * 2 + i % 2;
      totals[column * kTotalsPitch + row] = totals_[r][n][i];
    }
    sync_block();
    join_prefill(args_, shared_, place_);
  }

  const PrefillArguments& args_;
  const DecodeArguments& product_;
  uint8_t* const shared_;
  const PrefillPlace place_;
  const int lane_;
  int row_warp_;
  int column_warp_;
  int tiles_;
  WarpRows rows_;
  int group_ = 0;
  int group_left_ = 0;
  uint32_t words_[kRowTiles][kLaneWords];
  GroupValues<kBits, kPlanes, kRowTiles> values_;
  float sums_[kRowTiles][kColumnTiles][kSums][4];
  float totals_[kRowTiles][kColumnTiles][4];
};

}  // namespace lutra::cuda
