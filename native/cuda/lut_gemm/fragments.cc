#include "cuda/lut_gemm/fragments.h"

#include <cstring>

namespace lutra::cuda {

namespace {

int64_t tile_word_at(const PackedLayout& layout, int64_t row, int64_t chunk, int plane) {
  const int64_t tile = row / PackedLayout::kTileRows;
  return layout.codes_at(tile) + (chunk * layout.bits + plane) * layout.tile_rows(tile) + row % PackedLayout::kTileRows;
}

int64_t unit_at(const PackedLayout& layout, int64_t tile, int64_t unit) {
  return (tile * fragment_units(layout) + unit) * unit_words(layout.bits);
}

// The lane and the pair of row `row` of a tile and column `col` of a unit.
struct LanePair {
  int lane;
  int pair;
};
LanePair lane_pair(int row, int col) {
  const int step = col / kStepCols;
  const int within = col % kStepCols;
  return {row % 8 * 4 + within / 4, 4 * step + within % 4 / 2 * 2 + row / 8};
}

}  // namespace

Status to_fragments(const PackedLayout& layout, const uint32_t* tiles, uint32_t* fragments) {
  if (layout.bits < 2 || layout.bits > 4) return error(Code::kUnsupported, "fragments hold 2 to 4 bits", layout.bits);
  std::memset(fragments, 0, static_cast<size_t>(fragment_words(layout)) * sizeof(uint32_t));
  for (int64_t row = 0; row < layout.padded_rows(); ++row)
    for (int64_t chunk = 0; chunk < layout.chunks(); ++chunk) {
      const int64_t first = chunk * PackedLayout::kChunkCols;
      uint32_t* const unit = fragments + unit_at(layout, row / kTileRows, first / kUnitCols);
      for (int j = 0; j < layout.bits; ++j) {
        const uint32_t word = tiles[tile_word_at(layout, row, chunk, j)];
        for (int i = 0; i < PackedLayout::kChunkCols; ++i) {
          const auto [lane, pair] =
              lane_pair(static_cast<int>(row % kTileRows), static_cast<int>(first % kUnitCols) + i);
          const FragmentPlace place = fragment_place(layout.bits, pair, j);
          unit[unit_word_at(layout.bits, lane, place.word)] |= ((word >> i) & 1u) << (place.bit + i % 2 * 16);
        }
      }
    }
  return ok_status();
}

Status from_fragments(const PackedLayout& layout, const uint32_t* fragments, uint32_t* tiles) {
  if (layout.bits < 2 || layout.bits > 4) return error(Code::kUnsupported, "fragments hold 2 to 4 bits", layout.bits);
  for (int64_t row = 0; row < layout.padded_rows(); ++row)
    for (int64_t chunk = 0; chunk < layout.chunks(); ++chunk) {
      const int64_t first = chunk * PackedLayout::kChunkCols;
      const uint32_t* const unit = fragments + unit_at(layout, row / kTileRows, first / kUnitCols);
      for (int j = 0; j < layout.bits; ++j) {
        uint32_t word = 0;
        for (int i = 0; i < PackedLayout::kChunkCols; ++i) {
          const auto [lane, pair] =
              lane_pair(static_cast<int>(row % kTileRows), static_cast<int>(first % kUnitCols) + i);
          const FragmentPlace place = fragment_place(layout.bits, pair, j);
          word |= ((unit[unit_word_at(layout.bits, lane, place.word)] >> (place.bit + i % 2 * 16)) & 1u) << i;
        }
        tiles[tile_word_at(layout, row, chunk, j)] = word;
      }
    }
  return ok_status();
}

int fragment_code(const PackedLayout& layout, const uint32_t* fragments, int64_t row, int64_t col) {
  const auto [lane, pair] = lane_pair(static_cast<int>(row % kTileRows), static_cast<int>(col % kUnitCols));
  const uint32_t* const unit = fragments + unit_at(layout, row / kTileRows, col / kUnitCols);
  int code = 0;
  for (int j = 0; j < layout.bits; ++j) {
    const FragmentPlace place = fragment_place(layout.bits, pair, j);
    const uint32_t word = unit[unit_word_at(layout.bits, lane, place.word)];
    code |= static_cast<int>((word >> (place.bit + col % 2 * 16)) & 1u) << j;
  }
  return code;
}

}  // namespace lutra::cuda
