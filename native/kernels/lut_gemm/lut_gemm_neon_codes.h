// Panels for many tokens: from a tile's bit planes to codes, and to the bytes of integer panels, whose layout
// lut_gemm_neon_integer.h gives.
//
// A code word's byte j holds columns 8 j .. 8 j + 7, so shifts and masks make registers of columns p, p + 8, p + 16 and
// p + 24 of 4 rows; the halves of two neighbouring p make 4 columns of each run of 16.
#pragma once

#include "kernels/lut_gemm/lut_gemm_neon.h"

namespace lutra {

// Unnamed, so that no copy of one level can stand in for another's.
namespace {

constexpr int64_t kLutIntegerCols = 256;
constexpr int64_t kLutRun = 16;
constexpr int64_t kLutRuns = kLutIntegerCols / kLutRun;
constexpr int64_t kLutBlocks = kLutIntegerCols / kLutBlock;
constexpr int64_t kLutRunBytes = kLutRun * kLutTileRows;
constexpr int64_t kLutIntegerBytes = kLutRuns * kLutRunBytes;

LUTRA_INLINE uint32x4_t lut_select(uint32_t mask, uint32x4_t yes, uint32x4_t no) {
  return vbslq_u32(vdupq_n_u32(mask), yes, no);
}

// Even columns of planes 0 and 1 interleave to 2-bit fields in one register, odd ones in another; with two more planes
// these interleave again to nibbles of every fourth column.
template <int B>
struct LutFields {
  uint32x4_t pair[2];
  uint32x4_t nibble[4];

  static inline __attribute__((always_inline)) void interleave(uint32x4_t first, uint32x4_t second, uint32x4_t* pair) {
    pair[0] = lut_select(0x55555555u, first, vshlq_n_u32(second, 1));
    pair[1] = lut_select(0x55555555u, vshrq_n_u32(first, 1), second);
  }
  inline __attribute__((always_inline)) explicit LutFields(const uint32x4_t* words) {
    interleave(words[0], words[1], pair);
    if (B == 2) return;
    uint32x4_t upper[2];
    interleave(words[2], B == 4 ? words[B - 1] : vdupq_n_u32(0), upper);
    LUTRA_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      nibble[odd] = lut_select(0x33333333u, pair[odd], vshlq_n_u32(upper[odd], 2));
      nibble[odd + 2] = lut_select(0x33333333u, vshrq_n_u32(pair[odd], 2), upper[odd]);
    }
  }
  // Codes of column c, one in each lane.
  inline __attribute__((always_inline)) uint32x4_t column(int c) const {
    const uint32x4_t fields = B == 2 ? pair[c & 1] : nibble[c & 3];
    const int32x4_t down = vdupq_n_s32(-(B == 2 ? c & ~1 : c & ~3));
    return vandq_u32(vshlq_u32(fields, down), vdupq_n_u32(B == 2 ? 3 : 15));
  }
  // Codes of columns 8 j + p in byte j.
  inline __attribute__((always_inline)) uint8x16_t step(int p) const {
    const uint32x4_t fields = B == 2 ? pair[p & 1] : nibble[p & 3];
    const int32x4_t down = vdupq_n_s32(-(B == 2 ? p & 6 : p & 4));
    return vandq_u8(vreinterpretq_u8_u32(vshlq_u32(fields, down)), vdupq_n_u8(B == 2 ? 3 : 15));
  }
};

// Both runs of a chunk for 4 rows; a slice is a row's next 4 bytes.
template <class Dot, int B>
LUTRA_INLINE void lut_expand_chunk(const LutFields<B>& codes, int64_t row, uint8_t* run) {
  uint32x4_t slices[2][4];
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint16x8_t even = vreinterpretq_u16_u8(codes.step(2 * i));
    const uint16x8_t odd = vreinterpretq_u16_u8(codes.step(2 * i + 1));
    slices[0][i] = vreinterpretq_u32_u16(vtrn1q_u16(even, odd));
    slices[1][i] = vreinterpretq_u32_u16(vtrn2q_u16(even, odd));
  }
  Dot::store_codes(slices[0], row, run);
  Dot::store_codes(slices[1], row, run + kLutRunBytes);
}

template <int B>
LUTRA_INLINE LutFields<B> lut_load_fields(const LutTile& tile, int64_t k, int64_t row) {
  const uint32_t* codes = tile.codes + k / kLutChunk * B * tile.stored_rows + row;
  uint32x4_t words[B];
  LUTRA_UNROLL
  for (int b = 0; b < B; ++b) words[b] = vld1q_u32(codes + b * tile.stored_rows);
  return LutFields<B>(words);
}

template <class Dot, int B>
static void lut_expand_codes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  for (int64_t k = first; k < last; k += kLutChunk)
    for (int64_t row = 0; row < tile.stored_rows; row += 4)
      lut_expand_chunk<Dot, B>(lut_load_fields<B>(tile, k, row), row, panel + (k - first) / kLutRun * kLutRunBytes);
}

template <class Dot>
static void lut_expand_integers(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  switch (tile.bits) {
    case 2:
      return lut_expand_codes<Dot, 2>(tile, first, last, panel);
    case 3:
      return lut_expand_codes<Dot, 3>(tile, first, last, panel);
    default:
      return lut_expand_codes<Dot, 4>(tile, first, last, panel);
  }
}

}  // namespace

}  // namespace lutra
