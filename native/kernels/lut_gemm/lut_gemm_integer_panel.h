// The layout that integer panels share. Included by the files that fill them and those that multiply by them, alone.
//
//   panel     u8 [chunk][8][64 rows][4]   dword p of a chunk: the codes of columns p, p + 8, p + 16, p + 24
//             f32 [group of the panel][2][64 rows]   the scale and the offset of a row's group
//   prepared  of a token: s8 [digit][chunk][8][4], then f32 [2] the steps of its blocks and, at the first chunk of each
//             span, f32 [8] the sum of the span. Fast has one digit of x / step, in -127..127; accurate has two,
//             256 * high + low in -32639..32639.
//
// A block, the columns that share a step, is here twice kLutBlock: half as many integers fold, and a largest magnitude
// among 128 is hardly larger than one among 64. A span is again the part of a block that lies in one group. Sums are
// those of the rounded activations, so an error common to all columns cancels against the offset.
//
// Planes have no integer codes: fast mode rounds what a row's planes give a code to 1 / 255 of their range, and a
// group's scale and offset are those of these values.
//
// Bounds: products of u8 and s8 are added in int32, which wraps. A span has at most 128 columns and codes are at most
// 255: |sum of one digit| <= 128 * 255 * 128 < 2^22, and of both 128 * 255 * 32639 < 2^30.
#pragma once

#include "kernels/lut_gemm/lut_gemm.h"

namespace lutra {

constexpr int64_t kIntegerCols = 256;
constexpr int64_t kIntegerBlock = 128;
constexpr int64_t kIntegerChunks = kIntegerCols / kLutChunk;
constexpr int64_t kIntegerChunkBytes = kLutChunk * kLutTileRows;
constexpr int64_t kIntegerFoldFloats = 2 * kLutTileRows;
constexpr int64_t kIntegerFoldAt = kIntegerChunks * kIntegerChunkBytes;
constexpr int64_t kIntegerPanelBytes = kIntegerFoldAt + kIntegerChunks * kIntegerFoldFloats * 4;

constexpr int64_t kIntegerSums = 2;  // floats behind a token's digits: two steps, then the sums
constexpr int64_t integer_token_bytes(int digits) { return digits * kIntegerCols + 64; }

// What a sum meets in a panel: two joins for each of its spans. What a product meets in its own: the grid and the step
// (3), the sum of its group and its conversion, the scale (2) and the joins.
constexpr int64_t kIntegerJoins = 2 * kIntegerChunks;
constexpr int64_t kIntegerRoundings = 3 + 2 + 2 + kIntegerJoins;

// Half of 1 / 255, as a share of the range of a row's planes, and what computing the value in fp32 may add.
constexpr double kIntegerPlanesOff = 0.5 / 255 + 0x1p-20;

static inline int64_t integer_span_end(int64_t k, int64_t group_end) {
  return lut_min(group_end, (k / kIntegerBlock + 1) * kIntegerBlock);
}

void lut_gemm_avx512vbmi_expand(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel);
void lut_gemm_avx512vbmi_expand_planes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel);
void lut_gemm_avx512vbmi_prepare_fast(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                      int64_t group_size, uint8_t* prepared);
void lut_gemm_avx512vbmi_prepare_accurate(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                          int64_t group_size, uint8_t* prepared);

template <int D>
static int64_t integer_prepared_bytes(int64_t tokens) {
  return tokens * integer_token_bytes(D);
}

using IntegerProduct = decltype(LutPanelKernels::multiply);

// Panels of codes, times D digits of x.
template <int D>
static constexpr LutPanelKernels integer_panels(const char* name, IntegerProduct multiply) {
  return {name,
          kIntegerCols,
          kIntegerPanelBytes,
          kIntegerRoundings,
          kIntegerJoins,
          kIntegerBlock,
          D == 1 ? 127.0f : 32639.0f,
          0.0,
          0.0,
          integer_prepared_bytes<D>,
          D == 1 ? lut_gemm_avx512vbmi_prepare_fast : lut_gemm_avx512vbmi_prepare_accurate,
          lut_gemm_avx512vbmi_expand,
          multiply};
}

// Panels of the values of planes, times one digit.
static constexpr LutPanelKernels integer_planes_panels(const char* name, IntegerProduct multiply) {
  LutPanelKernels panels = integer_panels<1>(name, multiply);
  panels.relative = kIntegerPlanesOff;
  panels.expand = lut_gemm_avx512vbmi_expand_planes;
  return panels;
}

}  // namespace lutra
