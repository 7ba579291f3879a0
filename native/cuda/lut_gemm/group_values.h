// Which rows of a matrix a lane of the matrix unit sums up, and the scales and offsets of one of their groups.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/fragments.h"
#include "cuda/lut_gemm/matrix_element.h"
#include "cuda/lut_gemm/stored.h"

namespace lutra::cuda {

// The tiles of 16 rows of a warp, in one tile of 64 of packing/layout.h.
struct WarpRows {
  int first;      // row of the matrix where the tile of 64 begins
  int stride;     // rows that it stores
  int row;        // of the tile of 64: the first of the lane's sums
  int next_tile;  // 16, or 0 where a second tile would lie past the last row: it repeats the first, and is not stored
};

LUTRA_DEVICE int row_tiles_of(const DecodeArguments& args) {
  return static_cast<int>((args.rows + kTileRows - 1) / kTileRows);
}

// The rows of a lane in the tile `tile` of `tiles`, and in the one behind it.
LUTRA_DEVICE WarpRows warp_rows(int tile, int tiles, int lane) {
  WarpRows rows;
  rows.first = tile / 4 * PackedLayout::kTileRows;
  rows.stride = tiles * kTileRows - rows.first;
  if (rows.stride > PackedLayout::kTileRows) rows.stride = PackedLayout::kTileRows;
  rows.row = tile % 4 * kTileRows + lane / 4;
  rows.next_tile = tile + 1 < tiles ? kTileRows : 0;
  return rows;
}

// Scales and offsets of the group that a warp is in, for the two rows of each tile that a lane's sums belong to.
template <int kBits, bool kPlanes, int kRowTiles>
struct GroupValues {
  static constexpr int kScales = kPlanes ? kBits : 1;
  uint32_t scales[kRowTiles][2][kScales];  // as stored
  uint32_t offsets[kRowTiles][2];

  LUTRA_DEVICE void fetch(const DecodeArguments& args, const WarpRows& rows, int group) {
    const int64_t line = static_cast<int64_t>(rows.first) * args.groups + static_cast<int64_t>(group) * rows.stride;
    LUTRA_UNROLL
    for (int r = 0; r < kRowTiles; ++r) LUTRA_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = rows.row + (r == 0 ? 0 : rows.next_tile) + 8 * h;
      LUTRA_UNROLL
      for (int b = 0; b < kScales; ++b)
        scales[r][h][b] = stored_bits(args.scales, line * kScales + b * rows.stride + row, args.scale_dtype);
      if (args.offset_kind != static_cast<int32_t>(OffsetKind::kNone))
        offsets[r][h] = stored_bits(args.offsets, line + row, args.offset_dtype);
    }
  }
};

// What a group adds to every weight, from its scales (one, or one a plane) and its stored offset.
template <int kBits, bool kPlanes>
LUTRA_DEVICE float offset_of(const DecodeArguments& args, const float (&scales)[kPlanes ? kBits : 1], uint32_t stored) {
  if (args.offset_kind == static_cast<int32_t>(OffsetKind::kReal)) return stored_number(stored, args.offset_dtype);
  if (args.offset_kind == static_cast<int32_t>(OffsetKind::kZeroCode))
    return -scales[0] * stored_number(stored, kStoredU8);
  if constexpr (!kPlanes) return -scales[0] * static_cast<float>(1 << (kBits - 1));
  float sum = 0.0f;
  LUTRA_UNROLL
  for (int p = 0; p < (kPlanes ? kBits : 1); ++p) sum += scales[p];
  return -0.5f * sum;
}

// total += scales of the group * (sums without what the exponents added) + offset * sum of x, for number `i` of a tile.
template <int kBits, bool kPlanes>
LUTRA_DEVICE void fold_sums(const float (&scales)[kPlanes ? kBits : 1], float offset, float x_sum,
                            const float (&sums)[kPlanes ? kBits : 1][4], int i, float& total) {
  total = multiply_add(offset, x_sum, total);
  LUTRA_UNROLL
  for (int p = 0; p < (kPlanes ? kBits : 1); ++p) {
    const int from_top = kBits - 1 - p;
    const float zero = kPlanes ? plane_zero(from_top) : 1.0f;
    const float factor = kPlanes ? 1.0f / plane_step(from_top) : static_cast<float>(1 << kBits);
    total = multiply_add(scales[p] * factor, multiply_add(-zero, x_sum, sums[p][i]), total);
  }
}

}  // namespace lutra::cuda
