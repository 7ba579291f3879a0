// Codes in the order in which the matrix unit takes them: the device's only resident layout of uniform and plane codes.
// Scales, alphas and offsets keep the order of packing/layout.h.
//
//   codes  u32 [row tile of 16][unit of 128 columns][words of a unit]
//
// A unit is 16 rows x 128 columns = 8 steps of 16 columns: 64 codes and 2 * bits words a lane. Words 0-3 of all lanes
// come first (16 bytes a lane, one after the other), then words 4-5 (3 bits, 8 bytes a lane) or 4-7 (4 bits, 16 bytes a
// lane): every load of a warp is one run of 512 or 256 bytes.
//
// In a step, lane 4g + t holds four pairs of codes: pair r has row g + 8 * (r % 2) and columns 4t + 2 * (r / 2) and +
// 1, the even column in the low half of a word, the odd one in the high half, at the same place of both halves. (Which
// of a step's columns is which column of the matrix unit is free as long as x is loaded alike: so a lane's four rows of
// x are one load.) Pair q = 4 * step + r of a lane:
//   2 bits  word q / 8, bit 2 (q % 8)       4 bits  word q / 4, bit 4 (q % 4)
//   3 bits  words come in threes for 16 pairs: pair 0-14 word q / 5, bit 3 (q % 5); bit j of pair 15 is bit 15 of word
//   j.
// Padding (columns past `cols`, rows past `rows`) holds zeros.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "cuda/abi.h"
#include "cuda/simt/simt.h"
#include "packing/layout.h"

namespace lutra::cuda {

constexpr int kStepCols = 16;
constexpr int kUnitCols = 128;
constexpr int kUnitSteps = kUnitCols / kStepCols;
constexpr int kTileRows = 16;

constexpr int unit_lane_words(int bits) { return 2 * bits; }
constexpr int unit_words(int bits) { return unit_lane_words(bits) * kWarp; }

// Where word `word` of a lane lies in its unit.
constexpr int unit_word_at(int bits, int lane, int word) {
  if (word < 4) return lane * 4 + word;
  const int rest = unit_lane_words(bits) - 4;
  return 4 * kWarp + lane * rest + (word - 4);
}

// Where bit j of a lane's pair q lies: a word of the lane, and a bit of the word's low half (the odd column's is 16
// up).
struct FragmentPlace {
  int word;
  int bit;
};
constexpr FragmentPlace fragment_place(int bits, int q, int j) {
  if (bits != 3) return {q * bits / 16, q * bits % 16 + j};
  const int first = q / 16 * 3;
  const int within = q % 16;
  if (within == 15) return {first + j, 15};
  return {first + within / 5, within % 5 * 3 + j};
}

static_assert(LUTRA_CUDA_FRAGMENT_WORDS(kTileRows + 1, kUnitCols + 1, 3) == 4 * unit_words(3));
static_assert(LUTRA_CUDA_FRAGMENT_WORDS(kTileRows, kUnitCols, 2) == unit_words(2));

inline int64_t fragment_units(const PackedLayout& layout) { return ceil_div(layout.cols, kUnitCols); }
inline int64_t fragment_tiles(const PackedLayout& layout) { return ceil_div(layout.rows, kTileRows); }
inline int64_t fragment_words(const PackedLayout& layout) {
  return fragment_tiles(layout) * fragment_units(layout) * unit_words(layout.bits);
}

// The two layouts of one matrix; each call writes every word of its result. 2 to 4 bits.
Status to_fragments(const PackedLayout& layout, const uint32_t* tiles, uint32_t* fragments);
Status from_fragments(const PackedLayout& layout, const uint32_t* fragments, uint32_t* tiles);

// The code of one weight.
int fragment_code(const PackedLayout& layout, const uint32_t* fragments, int64_t row, int64_t col);

}  // namespace lutra::cuda
