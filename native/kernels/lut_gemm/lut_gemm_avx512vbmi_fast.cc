// Fast mode: 8-bit tables, four to a register.
//
// vpdpbusd adds the four bytes that were looked up for a row, each times 1 << plane, into its 32-bit lane: a widening
// sum that also applies the plane's weight. Entries are biased by 128 because vpdpbusd takes unsigned bytes;
// accumulators start at minus what the biases of the span add up to.
//
// Bounds: an entry is in 2..254 after the bias, a span has at most 16 lookups a plane: 16 * 254 * 15 < 2^16.
#include "kernels/lut_gemm/lut_gemm_avx512vbmi.h"

namespace lutra {

namespace {

constexpr int kBias = 128;
constexpr int kPrefetch = 7168;  // bytes ahead in the code stream, into L2; whole pages ahead is slower

struct Fast {
  static constexpr int64_t kChunkBytes = 128;

  template <int B, bool P, int R>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m512 (&t)[R][P ? B : 1]) {
    constexpr int kChains = P ? B : 2;
    // Bytes of the word that lie outside the span weigh nothing.
    const __m512i inside = _mm512_set1_epi32(static_cast<int>(span.bits));
    const int lookups = static_cast<int>(span.chunks) * (span.bits == 0xffffffffu ? 8 : 4);
    const __m512i unbias = _mm512_set1_epi32(-kBias * lookups * (P ? 1 : (1 << B) - 1));
    __m512i sums[R][kChains];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int i = 0; i < kChains; ++i) sums[r][i] = P || i == 0 ? unbias : _mm512_setzero_si512();
    }
    const uint32_t* codes = span.codes;
    const uint8_t* entries = span.entries;
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk, entries += kChunkBytes) {
      const __m512i low_tables = _mm512_load_si512(entries);
      const __m512i high_tables = _mm512_load_si512(entries + 64);
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b, codes += span.stride) {
        const __m512i weight = _mm512_and_si512(_mm512_set1_epi8(P ? 1 : 1 << b), inside);
        LUTRA_UNROLL
        for (int r = 0; r < R; ++r) {
          _mm_prefetch(reinterpret_cast<const char*>(codes + 16 * r) + kPrefetch, _MM_HINT_T1);
          const LutIndices index = lut_indices(_mm512_loadu_si512(codes + 16 * r));
          constexpr int kSecond = P ? 0 : 1;
          const int chain = P ? b : 0;
          sums[r][chain] = _mm512_dpbusd_epi32(sums[r][chain], _mm512_permutexvar_epi8(index.low, low_tables), weight);
          sums[r][chain + kSecond] =
              _mm512_dpbusd_epi32(sums[r][chain + kSecond], _mm512_permutexvar_epi8(index.high, high_tables), weight);
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

void lut_gemm_avx512vbmi_build_fast(const float* x, int64_t cols, int64_t group_size, int64_t block,
                                    const LutTables& tables) {
  float padded[kLutBlock];
  float sums16[4];
  __m512 fp[16];
  lut_block_tables(lut_block(x, cols, block, padded), fp, sums16);
  lut_store_sums(sums16, block, cols, group_size, tables.sums);
  const LutStep scale = lut_step(fp, kLutByteEntry);
  tables.steps[block] = scale.step;
  uint8_t* entries = tables.entries + block * 2 * Fast::kChunkBytes;
  const __m512 inverse = _mm512_set1_ps(scale.inverse);
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));  // adds the bias
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    // Tables of a chunk's low nibbles are its even ones.
    const LutWords words = lut_table_words(fp + i / 2 * 8 + i % 2, inverse);
    const __m512i bytes = _mm512_packs_epi16(words.first, words.second);
    lut_store_table_bytes(_mm512_xor_si512(bytes, sign), entries + i * 64);
  }
}

void lut_gemm_avx512vbmi_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Fast>(tile, tables, y, accumulate);
}

}  // namespace lutra
