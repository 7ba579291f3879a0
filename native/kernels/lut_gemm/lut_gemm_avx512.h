// What the AVX-512 files of lut_gemm share: the walk over a tile and the fold of a group. Included by them alone.
//
// Rows lie in lanes: one register is 16 rows of a chunk's plane, as the packed tile stores them. A mode supplies
//   Policy::kChunkBytes                   table bytes of a 32-column chunk
//   Policy::span<B, P, R>(span, t)        t[r][b] += the centred sums of the span, in units of x
// and is instantiated for B planes, P for weights that have an alpha per plane, R registers of rows at a time.
#pragma once

#include <immintrin.h>

#include "kernels/lut_gemm/lut_gemm.h"

#define LUTRA_INLINE static inline __attribute__((always_inline))
#define LUTRA_UNROLL _Pragma("GCC unroll 8")

namespace lutra {

void lut_gemm_avx512_build_exact(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables&);
void lut_gemm_avx512_exact(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
extern const LutPanelKernels kLutPanelsAvx512;

// With VBMI and VNNI.
void lut_gemm_avx512vbmi_build_fast(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables&);
void lut_gemm_avx512vbmi_build_accurate(const float* x, int64_t cols, int64_t group_size, int64_t block,
                                        const LutTables&);
void lut_gemm_avx512vbmi_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
void lut_gemm_avx512vbmi_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
const LutPanelKernels* lut_gemm_avx512vbmi_panels(LutMode mode, int bits, bool planes, int64_t group_size,
                                                  int64_t tokens);

// And with the tile unit.
const LutPanelKernels* lut_gemm_amx_panels(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens);

constexpr int64_t kLutGroupsAhead = 8;  // whose scales and offsets are asked for; past the tile lie the next one's

// 16 stored values from element i on, as fp32.
LUTRA_INLINE __m512 lut_load(const void* values, int64_t i, LutFloat type) {
  if (type == LutFloat::kF32) return _mm512_loadu_ps(static_cast<const float*>(values) + i);
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(values) + i));
  if (type == LutFloat::kF16) return _mm512_cvtph_ps(raw);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

LUTRA_INLINE __m512 lut_load_codes(const void* values, int64_t i) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(values) + i));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(raw));
}

// f + sum_b alpha_b * t_b + c * sum for 16 rows from `row` on; c as lut_gemm.h defines it.
template <int B, bool P>
LUTRA_INLINE __m512 lut_fold(const LutTile& tile, int64_t group, int64_t row, const __m512* t, float sum, __m512 f) {
  const int64_t at = group * tile.stored_rows + row;
  const __m512 total = _mm512_set1_ps(sum);
  __m512 c = _mm512_setzero_ps();
  if (P) {
    __m512 alphas = _mm512_setzero_ps();
    LUTRA_UNROLL
    for (int b = 0; b < B; ++b) {
      const __m512 alpha = lut_load(tile.scales, (group * B + b) * tile.stored_rows + row, tile.scale_type);
      f = _mm512_fmadd_ps(alpha, t[b], f);
      alphas = _mm512_add_ps(alphas, alpha);
    }
    if (tile.offset == LutOffset::kReal)
      c = _mm512_fmadd_ps(alphas, _mm512_set1_ps(0.5f), lut_load(tile.offsets, at, tile.offset_type));
    return _mm512_fmadd_ps(c, total, f);
  }
  // Before the scale: t + (half - z) * sum. One multiplication by the scale then serves both.
  const __m512 half = _mm512_set1_ps(0.5f * ((1 << B) - 1));
  __m512 codes = t[0];
  switch (tile.offset) {
    case LutOffset::kNone:
      codes = _mm512_fmadd_ps(_mm512_set1_ps(-0.5f), total, codes);
      break;
    case LutOffset::kZeroCode:
      codes = _mm512_fmadd_ps(_mm512_sub_ps(half, lut_load_codes(tile.offsets, at)), total, codes);
      break;
    case LutOffset::kReal:
      codes = _mm512_fmadd_ps(half, total, codes);
      f = _mm512_fmadd_ps(lut_load(tile.offsets, at, tile.offset_type), total, f);
      break;
  }
  return _mm512_fmadd_ps(lut_load(tile.scales, at, tile.scale_type), codes, f);
}

// Scales and offsets are short streams of their own, one line or two in every group: a miss there stops the codes too.
template <int B, bool P, int R>
LUTRA_INLINE void lut_prefetch_group(const LutTile& tile, int64_t group, int64_t row) {
  const char* scales = static_cast<const char*>(tile.scales);
  const char* offsets = static_cast<const char*>(tile.offsets);
  const int64_t scale_bytes = tile.scale_type == LutFloat::kF32 ? 4 : 2;
  const int64_t offset_bytes = tile.offset == LutOffset::kZeroCode ? 1 : tile.offset_type == LutFloat::kF32 ? 4 : 2;
  constexpr int kSums = P ? B : 1;
  LUTRA_UNROLL
  for (int r = 0; r < R; ++r) {
    LUTRA_UNROLL
    for (int b = 0; b < kSums; ++b)
      _mm_prefetch(scales + ((group * kSums + b) * tile.stored_rows + row + 16 * r) * scale_bytes, _MM_HINT_T0);
    if (tile.offset != LutOffset::kNone)
      _mm_prefetch(offsets + (group * tile.stored_rows + row + 16 * r) * offset_bytes, _MM_HINT_T0);
  }
}

struct LutSpan {
  const uint32_t* codes;   // the span's first chunk, first of its rows
  int64_t stride;          // stored rows: from plane to plane; a chunk is B of them
  const uint8_t* entries;  // tables of the first chunk
  int64_t chunks;
  uint32_t bits;  // lut_span_bits
  float step;
};

// Columns [k, end), all in `group`: f += their part of the rows.
template <class Policy, int B, bool P, int R>
LUTRA_INLINE void lut_add_group(const LutTile& tile, const LutTables& tables, int64_t group, int64_t row, int64_t k,
                                int64_t end, __m512 (&f)[R]) {
  constexpr int kSums = P ? B : 1;
  __m512 t[R][kSums];
  LUTRA_UNROLL
  for (int r = 0; r < R; ++r) {
    LUTRA_UNROLL
    for (int b = 0; b < kSums; ++b) t[r][b] = _mm512_setzero_ps();
  }
  lut_prefetch_group<B, P, R>(tile, group + kLutGroupsAhead, row);
  float sum = 0.0f;
  while (k < end) {
    const int64_t span_end = lut_span_end(k, end);
    const int64_t chunk = k / kLutChunk;
    const LutSpan span = {tile.codes + chunk * B * tile.stored_rows + row,
                          tile.stored_rows,
                          tables.entries + chunk * Policy::kChunkBytes,
                          (span_end + kLutChunk - 1) / kLutChunk - chunk,
                          lut_span_bits(k, tile.group_size),
                          tables.steps[k / kLutBlock]};
    // Whole blocks with their sizes known to the compiler.
    if (span.bits == 0xffffffffu && span.chunks == 2) {
      LutSpan whole = span;
      whole.bits = 0xffffffffu;
      whole.chunks = 2;
      Policy::template span<B, P, R>(whole, t);
    } else {
      Policy::template span<B, P, R>(span, t);
    }
    sum += tables.sums[k / 16];
    k = span_end;
  }
  LUTRA_UNROLL
  for (int r = 0; r < R; ++r) f[r] = lut_fold<B, P>(tile, group, row + 16 * r, t[r], sum, f[r]);
}

template <class Policy, int B, bool P, int R>
LUTRA_INLINE void lut_rows(const LutTile& tile, const LutTables& tables, int64_t row, float* y, bool accumulate) {
  __m512 total[R];
  LUTRA_UNROLL
  for (int r = 0; r < R; ++r) total[r] = _mm512_setzero_ps();
  int64_t group = 0;
  for (int64_t k = 0; k < tile.cols;) {
    const int64_t segment_end = lut_min(tile.cols, k + kLutSegment);
    __m512 f[R];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) f[r] = _mm512_setzero_ps();
    while (k < segment_end) {
      const int64_t end = lut_min(segment_end, (group + 1) * tile.group_size);
      lut_add_group<Policy, B, P, R>(tile, tables, group, row, k, end, f);
      k = end;
      if (end == (group + 1) * tile.group_size) ++group;
    }
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) total[r] = _mm512_add_ps(total[r], f[r]);
  }
  LUTRA_UNROLL
  for (int r = 0; r < R; ++r) {
    const int64_t left = tile.rows - row - 16 * r;
    if (left <= 0) continue;
    const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    float* out = y + row + 16 * r;
    if (accumulate) total[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), total[r]);
    _mm512_mask_storeu_ps(out, mask, total[r]);
  }
}

template <class Policy, int B, bool P>
static void lut_tile_rows(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  // All rows of a full tile: half of them would walk the codes twice, every other pair of lines a time. The sums of
  // planes then spill, which costs less.
  constexpr int kWide = 4;
  int64_t row = 0;
  for (; row + 16 * kWide <= tile.stored_rows; row += 16 * kWide)
    lut_rows<Policy, B, P, kWide>(tile, tables, row, y, accumulate);
  for (; row < tile.stored_rows; row += 16) lut_rows<Policy, B, P, 1>(tile, tables, row, y, accumulate);
}

template <class Policy>
static void lut_tile_product(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  switch (tile.bits) {
    case 2:
      return tile.planes ? lut_tile_rows<Policy, 2, true>(tile, tables, y, accumulate)
                         : lut_tile_rows<Policy, 2, false>(tile, tables, y, accumulate);
    case 3:
      return tile.planes ? lut_tile_rows<Policy, 3, true>(tile, tables, y, accumulate)
                         : lut_tile_rows<Policy, 3, false>(tile, tables, y, accumulate);
    default:
      return tile.planes ? lut_tile_rows<Policy, 4, true>(tile, tables, y, accumulate)
                         : lut_tile_rows<Policy, 4, false>(tile, tables, y, accumulate);
  }
}

// The centred table of four columns: lane e holds sum_i (bit i of e ? +x_i : -x_i) / 2. Halves are exact and roundings
// symmetric, so entries of opposite patterns are exact opposites.
LUTRA_INLINE __m512 lut_table(const float* x) {
  const __m512 plus = _mm512_set1_ps(0.5f);
  const __m512 minus = _mm512_set1_ps(-0.5f);
  const __m512 table = _mm512_mul_ps(_mm512_mask_blend_ps(0xaaaa, minus, plus), _mm512_set1_ps(x[0]));
  const __m512 two = _mm512_fmadd_ps(_mm512_mask_blend_ps(0xcccc, minus, plus), _mm512_set1_ps(x[1]), table);
  const __m512 three = _mm512_fmadd_ps(_mm512_mask_blend_ps(0xf0f0, minus, plus), _mm512_set1_ps(x[2]), two);
  return _mm512_fmadd_ps(_mm512_mask_blend_ps(0xff00, minus, plus), _mm512_set1_ps(x[3]), three);
}

// A block's 16 tables and the sums of its runs of 16 columns.
LUTRA_INLINE void lut_block_tables(const float* x, __m512* tables, float* sums16) {
  LUTRA_UNROLL
  for (int run = 0; run < 4; ++run) sums16[run] = _mm512_reduce_add_ps(_mm512_loadu_ps(x + 16 * run));
  _Pragma("GCC unroll 16") for (int q = 0; q < 16; ++q) tables[q] = lut_table(x + 4 * q);
}

// What one unit of a fixed-point entry is worth, and its inverse; both zero for a block that counts as zero. NaN and
// infinity need no care here: they reach every y through the sums.
struct LutStep {
  float step;
  float inverse;
};
LUTRA_INLINE LutStep lut_step(const __m512* tables, float limit) {
  __m512 largest = _mm512_setzero_ps();  // a table's least entry is minus its greatest
  _Pragma("GCC unroll 16") for (int q = 0; q < 16; ++q) largest = _mm512_max_ps(largest, tables[q]);
  const float most = _mm512_reduce_max_ps(largest);
  if (!(most >= kLutSmallest)) return {0.0f, 0.0f};
  return {most / limit, limit / most};
}

}  // namespace lutra
