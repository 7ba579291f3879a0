// Accurate mode: 16-bit tables, looked up as their low and their high bytes.
//
// vpermw with vpdpwssd would do it in one go, at 15 instructions for a register of code words; two lookups of bytes
// with two sums take 11, since low and high bytes share their indices. Entries are biased by 32768 because vpdpbusd
// takes unsigned bytes; the sums of low bytes start at minus what the biases of the span add up to.
//
// Bounds: a span has at most 16 lookups a plane: 16 * 255 * 15 < 2^16 for each byte, 2^24 together.
#include "kernels/lut_gemm/lut_gemm_avx512vbmi.h"

namespace lutra {

namespace {

constexpr int kBias = 32768;
constexpr int kPrefetch = 7168;  // bytes ahead in the code stream, into L2; whole pages ahead is slower

struct Accurate {
  static constexpr int64_t kChunkBytes = 256;

  template <int B, bool P, int R>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m512 (&t)[R][P ? B : 1]) {
    constexpr int kSums = P ? B : 1;
    // Bytes of the word that lie outside the span weigh nothing.
    const __m512i inside = _mm512_set1_epi32(static_cast<int>(span.bits));
    const int lookups = static_cast<int>(span.chunks) * (span.bits == 0xffffffffu ? 8 : 4);
    const __m512i unbias = _mm512_set1_epi32(-kBias * lookups * (P ? 1 : (1 << B) - 1));
    __m512i low[R][kSums];
    __m512i high[R][kSums];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int i = 0; i < kSums; ++i) {
        low[r][i] = unbias;
        high[r][i] = _mm512_setzero_si512();
      }
    }
    const uint32_t* codes = span.codes;
    const uint8_t* entries = span.entries;
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk, entries += kChunkBytes) {
      __m512i table[4];
      LUTRA_UNROLL
      for (int i = 0; i < 4; ++i) table[i] = _mm512_load_si512(entries + 64 * i);
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b, codes += span.stride) {
        const __m512i weight = _mm512_and_si512(_mm512_set1_epi8(P ? 1 : 1 << b), inside);
        LUTRA_UNROLL
        for (int r = 0; r < R; ++r) {
          _mm_prefetch(reinterpret_cast<const char*>(codes + 16 * r) + kPrefetch, _MM_HINT_T1);
          const LutIndices index = lut_indices(_mm512_loadu_si512(codes + 16 * r));
          __m512i& lows = low[r][P ? b : 0];
          __m512i& highs = high[r][P ? b : 0];
          lows = _mm512_dpbusd_epi32(lows, _mm512_permutexvar_epi8(index.low, table[0]), weight);
          highs = _mm512_dpbusd_epi32(highs, _mm512_permutexvar_epi8(index.low, table[1]), weight);
          lows = _mm512_dpbusd_epi32(lows, _mm512_permutexvar_epi8(index.high, table[2]), weight);
          highs = _mm512_dpbusd_epi32(highs, _mm512_permutexvar_epi8(index.high, table[3]), weight);
        }
      }
    }
    const __m512 step = _mm512_set1_ps(span.step);
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int b = 0; b < kSums; ++b) {
        const __m512i sum = _mm512_add_epi32(low[r][b], _mm512_slli_epi32(high[r][b], 8));
        t[r][b] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), step, t[r][b]);
      }
    }
  }
};

}  // namespace

void lut_gemm_avx512vbmi_build_accurate(const float* x, int64_t cols, int64_t group_size, int64_t block,
                                        const LutTables& tables) {
  float padded[kLutBlock];
  float sums16[4];
  __m512 fp[16];
  lut_block_tables(lut_block(x, cols, block, padded), fp, sums16);
  lut_store_sums(sums16, block, cols, group_size, tables.sums);
  const LutStep scale = lut_step(fp, 32767.0f);
  tables.steps[block] = scale.step;
  uint8_t* entries = tables.entries + block * 2 * Accurate::kChunkBytes;
  const __m512 inverse = _mm512_set1_ps(scale.inverse);
  const __m512i sign = _mm512_set1_epi16(static_cast<int16_t>(0x8000));  // adds the bias
  const __m512i low = _mm512_set1_epi16(0xff);
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    // Tables of a chunk's low nibbles are its even ones.
    const LutWords words = lut_table_words(fp + i / 2 * 8 + i % 2, inverse);
    const __m512i first = _mm512_xor_si512(words.first, sign);
    const __m512i second = _mm512_xor_si512(words.second, sign);
    uint8_t* out = entries + i * 128;
    lut_store_table_bytes(_mm512_packus_epi16(_mm512_and_si512(first, low), _mm512_and_si512(second, low)), out);
    lut_store_table_bytes(_mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8)), out + 64);
  }
}

void lut_gemm_avx512vbmi_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Accurate>(tile, tables, y, accumulate);
}

}  // namespace lutra
