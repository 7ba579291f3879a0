// Accurate mode: 16-bit tables, two to a register.
//
// vpermw looks up all 32 words of a register in two 16-entry tables: word 0 of a row's code (columns 0..15 of the
// chunk) in the first, word 1 (columns 16..31) in the second. vpdpwssd adds both, times 1 << plane, into the row's
// 32-bit lane.
//
// Bounds: a span has at most 16 lookups a plane: 16 * 32767 * 15 < 2^23.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

constexpr int kPrefetch = 4096;  // bytes ahead in the code stream

struct Accurate {
  static constexpr int64_t kChunkBytes = 256;

  template <int Shift>
  static inline __attribute__((always_inline)) __m512i look_up(__m512i words, __m512i table) {
    const __m512i nibble = _mm512_set1_epi16(15);
    const __m512i table_of_word = _mm512_set1_epi32(0x00100000);
    const __m512i shifted = Shift ? _mm512_srli_epi16(words, Shift) : words;
    // (shifted & nibble) | table_of_word
    return _mm512_permutexvar_epi16(_mm512_ternarylogic_epi32(shifted, nibble, table_of_word, 0xea), table);
  }

  template <int B, bool P, int R>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m512 (&t)[R][P ? B : 1]) {
    constexpr int kChains = P ? B : 2;
    const __m512i inside = _mm512_set1_epi32(static_cast<int>(span.bits));
    __m512i sums[R][kChains];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int i = 0; i < kChains; ++i) sums[r][i] = _mm512_setzero_si512();
    }
    const uint32_t* codes = span.codes;
    const uint8_t* entries = span.entries;
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk, entries += kChunkBytes) {
      __m512i table[4];
      LUTRA_UNROLL
      for (int q = 0; q < 4; ++q) table[q] = _mm512_load_si512(entries + 64 * q);
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b, codes += span.stride) {
        const __m512i weight = _mm512_and_si512(_mm512_set1_epi16(P ? 1 : 1 << b), inside);
        LUTRA_UNROLL
        for (int r = 0; r < R; ++r) {
          _mm_prefetch(reinterpret_cast<const char*>(codes + 16 * r) + kPrefetch, _MM_HINT_T0);
          const __m512i words = _mm512_loadu_si512(codes + 16 * r);
          constexpr int kSecond = P ? 0 : 1;
          __m512i& even = sums[r][P ? b : 0];
          __m512i& odd = sums[r][(P ? b : 0) + kSecond];
          even = _mm512_dpwssd_epi32(even, look_up<0>(words, table[0]), weight);
          odd = _mm512_dpwssd_epi32(odd, look_up<4>(words, table[1]), weight);
          even = _mm512_dpwssd_epi32(even, look_up<8>(words, table[2]), weight);
          odd = _mm512_dpwssd_epi32(odd, look_up<12>(words, table[3]), weight);
        }
      }
    }
    const __m512 step = _mm512_set1_ps(span.step);
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int b = 0; b < (P ? B : 1); ++b) {
        const __m512i sum = P ? sums[r][b] : _mm512_add_epi32(sums[r][0], sums[r][1]);
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
  _Pragma("GCC unroll 16") for (int q = 0; q < 16; ++q) {
    const __m256i words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(fp[q], inverse)));
    // Table q of its chunk's eight serves nibble q % 4 of word q / 4.
    uint8_t* place = entries + q / 8 * Accurate::kChunkBytes + q % 4 * 64 + q % 8 / 4 * 32;
    _mm256_store_si256(reinterpret_cast<__m256i*>(place), words);
  }
}

void lut_gemm_avx512vbmi_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Accurate>(tile, tables, y, accumulate);
}

}  // namespace lutra
