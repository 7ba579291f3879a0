// Many tokens by integers on ymm registers, shared by the AVX2 and the AVX-VNNI files: codes unpacked to a panel of
// bytes, activations rounded to signed bytes as in lut_gemm_avx2_integer.h.
//
//   panel     u8 [chunk][8][64 rows][4]   dword p of a chunk: the codes of columns p, p + 8, p + 16, p + 24
//             f32 [group of the panel][2][64 rows]   the scale and the offset of a row's group
//   prepared  of a token: s8 [digit][chunk][8][4], the high digit first; then f32 [4] the steps of its blocks and
//             f32 [8] the sums of its chunks, those of the rounded activations, so that an error common to all columns
//             cancels against the offset.
//
// A policy supplies
//   Dot::kTokens                                   tokens that its registers hold times 16 rows
//   Dot::add_digits<T>(panel, x, chunks, sums)     sums[t][r] += a digit of T tokens times two registers of rows
#pragma once

#include "kernels/lut_gemm/lut_gemm_avx2_integer.h"

namespace lutra {

constexpr int64_t kLutBytePanelCols = 256;
constexpr int64_t kLutBytePanelChunks = kLutBytePanelCols / kLutChunk;
constexpr int64_t kLutBytePanelChunkBytes = kLutChunk * kLutTileRows;
constexpr int64_t kLutBytePanelFolds = 2 * kLutTileRows;  // floats of a group, which has at least a chunk
constexpr int64_t kLutBytePanelBytes = kLutBytePanelChunks * (kLutBytePanelChunkBytes + kLutBytePanelFolds * 4);

// A product meets: its rounding to the grid and in the step (3), the spans of a group and of a panel, its integer to
// fp32, the scale (2) and the joins, two for each of a panel's groups.
constexpr int64_t kLutBytePanelJoins = 2 * kLutBytePanelChunks;
constexpr int64_t kLutBytePanelRoundings = 3 + 2 * kLutBytePanelChunks + 1 + 2 + kLutBytePanelJoins;

template <int Digits>
constexpr int64_t kLutByteToken = Digits* kLutBytePanelCols + 64;

void lut_gemm_avx2_expand_bytes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel);
void lut_gemm_avx2_prepare_fast(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last, int64_t,
                                uint8_t* prepared);
void lut_gemm_avx2_prepare_accurate(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                    int64_t, uint8_t* prepared);

// Where a register's rows lie in a dword of the panel.
LUTRA_INLINE __m256i lut_panel_codes(const uint8_t* panel, int64_t p, int r) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + p * 4 * kLutTileRows + r * 32));
}

LUTRA_INLINE __m256i lut_panel_digits(const uint8_t* x, int64_t p) {
  int32_t digits;
  __builtin_memcpy(&digits, x + p * 4, 4);
  return _mm256_set1_epi32(digits);
}

// The integer sums of a span: with two digits 256 * high + low.
template <class Dot, int Digits, int T>
LUTRA_INLINE void lut_span_sums(const uint8_t* panel, const uint8_t* x, int64_t chunks, __m256i (&sums)[T][2]) {
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
  Dot::template add_digits<T, kLutByteToken<Digits>>(panel, x, chunks, sums);
  if (Digits == 1) return;
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    sums[t][0] = _mm256_slli_epi32(sums[t][0], 8);
    sums[t][1] = _mm256_slli_epi32(sums[t][1], 8);
  }
  Dot::template add_digits<T, kLutByteToken<Digits>>(panel, x + kLutBytePanelCols, chunks, sums);
}

// Columns [k, end) of one group, counted from the panel's first: out (+)= scale * (sum of steps * integers)
// + offset * sum of x, of 16 rows and T tokens.
template <class Dot, int Digits, int T>
LUTRA_INLINE void lut_panel_group(const uint8_t* panel, const float* fold, const uint8_t* x, int64_t k, int64_t end,
                                  float* out, bool accumulate) {
  alignas(32) float part[T][2][8];
  const float* tail = reinterpret_cast<const float*>(x + Digits * kLutBytePanelCols);
  constexpr int64_t kTailStride = kLutByteToken<Digits> / 4;
  for (int64_t at = k; at < end;) {
    const int64_t span_end = lut_span_end(at, end);
    const int64_t chunk = at / kLutChunk;
    __m256i sums[T][2];
    lut_span_sums<Dot, Digits, T>(panel + chunk * kLutBytePanelChunkBytes, x + at,
                                  (span_end + kLutChunk - 1) / kLutChunk - chunk, sums);
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m256 step = _mm256_set1_ps(tail[t * kTailStride + at / kLutBlock]);
      LUTRA_UNROLL
      for (int r = 0; r < 2; ++r) {
        const __m256 before = at > k ? _mm256_load_ps(part[t][r]) : _mm256_setzero_ps();
        _mm256_store_ps(part[t][r], _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t][r]), step, before));
      }
    }
    at = span_end;
  }
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    float total = 0.0f;
    for (int64_t at = k; at < end; at += kLutChunk) total += tail[t * kTailStride + 4 + at / kLutChunk];
    LUTRA_UNROLL
    for (int r = 0; r < 2; ++r) {
      float* to = out + t * kLutTileRows + 8 * r;
      const __m256 before = accumulate ? _mm256_load_ps(to) : _mm256_setzero_ps();
      const __m256 offset = _mm256_load_ps(fold + kLutTileRows + 8 * r);
      const __m256 moved = _mm256_fmadd_ps(offset, _mm256_set1_ps(total), before);
      _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_load_ps(fold + 8 * r), _mm256_load_ps(part[t][r]), moved));
    }
  }
}

// 16 rows from `row` on times T tokens.
template <class Dot, int Digits, int T>
static void lut_panel_block(const LutTile& tile, int64_t first, int64_t last, int64_t row, const uint8_t* panel,
                            const uint8_t* x, float* out, bool accumulate) {
  const float* fold = reinterpret_cast<const float*>(panel + kLutBytePanelChunks * kLutBytePanelChunkBytes) + row;
  for (int64_t k = first; k < last; fold += kLutBytePanelFolds) {
    const int64_t end = lut_group_end(k, last, tile.group_size);
    lut_panel_group<Dot, Digits, T>(panel + row * 4, fold, x, k - first, end - first, out + row,
                                    accumulate || k > first);
    k = end;
  }
}

template <class Dot, int Digits>
static void lut_panel_multiply(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel,
                               const uint8_t* prepared, int64_t tokens, float* sums, bool accumulate) {
  const auto kernel = [](int64_t count) __attribute__((always_inline)) {
    switch (count) {
      case 1:
        return lut_panel_block<Dot, Digits, 1>;
      case 2:
        return lut_panel_block<Dot, Digits, 2>;
      case 3:
        return lut_panel_block<Dot, Digits, 3>;
      case 4:
        return lut_panel_block<Dot, Digits, 4>;
      case 5:
        return lut_panel_block<Dot, Digits, (Dot::kTokens > 4 ? 5 : 4)>;
      default:
        return lut_panel_block<Dot, Digits, Dot::kTokens>;
    }
  };
  for (int64_t row = 0; row < tile.stored_rows; row += 16)
    // As many tokens at a time as the registers hold, the rest evenly.
    for (int64_t blocks = (tokens + Dot::kTokens - 1) / Dot::kTokens, t = 0; blocks > 0; --blocks) {
      const int64_t count = (tokens - t) / blocks;
      kernel(count)(tile, first, last, row, panel, prepared + t * kLutByteToken<Digits>, sums + t * kLutTileRows,
                    accumulate);
      t += count;
    }
}

template <int Digits>
static int64_t lut_byte_prepared_bytes(int64_t tokens) {
  return tokens * kLutByteToken<Digits>;
}

template <class Dot, int Digits>
static constexpr LutPanelKernels lut_byte_panels(const char* name) {
  return {name,
          kLutBytePanelCols,
          kLutBytePanelBytes,
          kLutBytePanelRoundings,
          kLutBytePanelJoins,
          kLutBlock,
          Digits == 1 ? 127.0f : 32639.0f,
          0.0,
          0.0,
          lut_byte_prepared_bytes<Digits>,
          Digits == 1 ? lut_gemm_avx2_prepare_fast : lut_gemm_avx2_prepare_accurate,
          lut_gemm_avx2_expand_bytes,
          lut_panel_multiply<Dot, Digits>};
}

}  // namespace lutra
