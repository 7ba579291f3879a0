// What the AVX2 files of lut_gemm share: the walk over a tile and the fold of a group. Included by them alone.
//
// Rows lie in lanes: one register is 8 rows of a chunk's plane, as the packed tile stores them. A mode supplies
//   Policy::kChunkBytes              bytes of `entries` of a 32-column chunk
//   Policy::kCentred                 whether sums are of (bit - 1/2) x (tables) or of bit x (rounded activations)
//   Policy::span<B, P>(span, sums)   sums[b] = the sums of 8 rows over the span, in units of x
#pragma once

#include <immintrin.h>

#include "kernels/lut_gemm/lut_gemm.h"

#define LUTRA_INLINE static inline __attribute__((always_inline))
#define LUTRA_UNROLL _Pragma("GCC unroll 8")

namespace lutra {

void lut_gemm_avx2_build_fast(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables&);
void lut_gemm_avx2_build_accurate(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables&);
void lut_gemm_avx2_build_exact(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables&);
void lut_gemm_avx2_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
void lut_gemm_avx2_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
void lut_gemm_avx2_exact(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
extern const LutPanelKernels kLutPanelsAvx2;
extern const LutPanelKernels kLutFastPanelsAvx2;
extern const LutPanelKernels kLutAccuratePanelsAvx2;

// 8 stored values from element i on, as fp32.
LUTRA_INLINE __m256 lut_load(const void* values, int64_t i, LutFloat type) {
  if (type == LutFloat::kF32) return _mm256_loadu_ps(static_cast<const float*>(values) + i);
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(values) + i));
  if (type == LutFloat::kF16) return _mm256_cvtph_ps(raw);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}

LUTRA_INLINE __m256 lut_load_codes(const void* values, int64_t i) {
  const __m128i raw = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(values) + i));
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(raw));
}

LUTRA_INLINE float lut_sum(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

LUTRA_INLINE float lut_max(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// Lanes below `count` all ones: for stores that stop at the last row.
LUTRA_INLINE __m256i lut_lanes(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < 8 ? count : 8)), index);
}

// f + sum_b alpha_b * t_b + c * sum for 8 rows from `row` on. With centred sums c is that of lut_gemm.h, otherwise it
// is the offset itself.
template <int B, bool P, bool Centred>
LUTRA_INLINE __m256 lut_fold(const LutTile& tile, int64_t group, int64_t row, const __m256* t, float sum, __m256 f) {
  const int64_t at = group * tile.stored_rows + row;
  const __m256 total = _mm256_set1_ps(sum);
  __m256 c = _mm256_setzero_ps();
  if (P) {
    __m256 alphas = _mm256_setzero_ps();
    LUTRA_UNROLL
    for (int b = 0; b < B; ++b) {
      const __m256 alpha = lut_load(tile.scales, (group * B + b) * tile.stored_rows + row, tile.scale_type);
      f = _mm256_fmadd_ps(alpha, t[b], f);
      alphas = _mm256_add_ps(alphas, alpha);
    }
    const __m256 half = _mm256_set1_ps(0.5f);
    if (tile.offset == LutOffset::kReal) {
      c = lut_load(tile.offsets, at, tile.offset_type);
      if (Centred) c = _mm256_fmadd_ps(alphas, half, c);
    } else if (!Centred) {
      c = _mm256_fnmadd_ps(alphas, half, c);
    }
    return _mm256_fmadd_ps(c, total, f);
  }
  const __m256 scale = lut_load(tile.scales, at, tile.scale_type);
  const __m256 half = _mm256_set1_ps(Centred ? 0.5f * ((1 << B) - 1) : 0.0f);
  switch (tile.offset) {
    case LutOffset::kNone:
      c = _mm256_mul_ps(scale, _mm256_sub_ps(half, _mm256_set1_ps(1 << (B - 1))));
      break;
    case LutOffset::kZeroCode:
      c = _mm256_mul_ps(scale, _mm256_sub_ps(half, lut_load_codes(tile.offsets, at)));
      break;
    case LutOffset::kReal:
      c = _mm256_fmadd_ps(scale, half, lut_load(tile.offsets, at, tile.offset_type));
      break;
  }
  return _mm256_fmadd_ps(c, total, _mm256_fmadd_ps(scale, t[0], f));
}

struct LutSpan {
  const uint32_t* codes;   // the span's first chunk, first of its rows
  int64_t stride;          // stored rows: from plane to plane; a chunk is B of them
  const uint8_t* entries;  // of the first chunk
  int64_t chunks;
  uint32_t bits;  // lut_span_bits
  float step;
};

constexpr int kLutRegisters = kLutTileRows / 8;  // of rows, in a full tile

// Columns [k, end), all in `group`: f += their part of the tile. All rows go through a span before the next one: the
// code stream is read in order, the sums wait in L1.
template <class Policy, int B, bool P>
static void lut_add_group(const LutTile& tile, const LutTables& tables, int64_t group, int64_t k, int64_t end,
                          __m256* f) {
  constexpr int kSums = P ? B : 1;
  const int registers = static_cast<int>(tile.stored_rows / 8);
  __m256 t[kLutRegisters][kSums];
  float sum = 0.0f;
  for (bool first = true; k < end; first = false) {
    const int64_t span_end = lut_span_end(k, end);
    const int64_t chunk = k / kLutChunk;
    LutSpan span = {tile.codes + chunk * B * tile.stored_rows,
                    tile.stored_rows,
                    tables.entries + chunk * Policy::kChunkBytes,
                    (span_end + kLutChunk - 1) / kLutChunk - chunk,
                    lut_span_bits(k, tile.group_size),
                    tables.steps[k / kLutBlock]};
    for (int r = 0; r < registers; ++r, span.codes += 8) {
      __m256 sums[kSums];
      Policy::template span<B, P>(span, sums);
      LUTRA_UNROLL
      for (int b = 0; b < kSums; ++b) t[r][b] = first ? sums[b] : _mm256_add_ps(t[r][b], sums[b]);
    }
    sum += tables.sums[k / 16];
    k = span_end;
  }
  for (int r = 0; r < registers; ++r) f[r] = lut_fold<B, P, Policy::kCentred>(tile, group, 8 * r, t[r], sum, f[r]);
}

template <class Policy, int B, bool P>
static void lut_tile_rows(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  const int registers = static_cast<int>(tile.stored_rows / 8);
  __m256 total[kLutRegisters];
  for (int r = 0; r < registers; ++r) total[r] = _mm256_setzero_ps();
  int64_t group = 0;
  for (int64_t k = 0; k < tile.cols;) {
    const int64_t segment_end = lut_min(tile.cols, k + kLutSegment);
    __m256 f[kLutRegisters];
    for (int r = 0; r < registers; ++r) f[r] = _mm256_setzero_ps();
    while (k < segment_end) {
      const int64_t end = lut_min(segment_end, (group + 1) * tile.group_size);
      lut_add_group<Policy, B, P>(tile, tables, group, k, end, f);
      k = end;
      if (end == (group + 1) * tile.group_size) ++group;
    }
    for (int r = 0; r < registers; ++r) total[r] = _mm256_add_ps(total[r], f[r]);
  }
  for (int r = 0; r < registers; ++r) {
    const int64_t left = tile.rows - 8 * r;
    if (left <= 0) continue;
    const __m256i lanes = lut_lanes(left);
    if (accumulate) total[r] = _mm256_add_ps(_mm256_maskload_ps(y + 8 * r, lanes), total[r]);
    _mm256_maskstore_ps(y + 8 * r, lanes, total[r]);
  }
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

}  // namespace lutra
