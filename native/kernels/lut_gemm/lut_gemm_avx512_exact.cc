// Exact mode: fp32 tables, one to a register. vpermps reads only the low four bits of an index, so a nibble needs a
// shift and no mask.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

constexpr int kPrefetch = 7168;  // bytes ahead in the code stream, into L2; whole pages ahead is slower

struct Exact {
  static constexpr int64_t kChunkBytes = 512;

  // The sum of the lookups of nibbles 0..3 of each word, 16 columns.
  static inline __attribute__((always_inline)) __m512 half_chunk(__m512i words, const uint8_t* entries) {
    const float* tables = reinterpret_cast<const float*>(entries);
    const __m512 a = _mm512_permutexvar_ps(words, _mm512_load_ps(tables));
    const __m512 b = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4), _mm512_load_ps(tables + 16));
    const __m512 c = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 8), _mm512_load_ps(tables + 32));
    const __m512 d = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 12), _mm512_load_ps(tables + 48));
    return _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
  }

  template <int B, bool P, int R>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m512 (&t)[R][P ? B : 1]) {
    constexpr int kSums = P ? B : 1;
    __m512 sums[R][kSums];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int b = 0; b < kSums; ++b) sums[r][b] = _mm512_setzero_ps();
    }
    const uint32_t* codes = span.codes;
    const uint8_t* entries = span.entries;
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk, entries += kChunkBytes) {
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b, codes += span.stride) {
        LUTRA_UNROLL
        for (int r = 0; r < R; ++r) {
          _mm_prefetch(reinterpret_cast<const char*>(codes + 16 * r) + kPrefetch, _MM_HINT_T1);
          const __m512i words = _mm512_loadu_si512(codes + 16 * r);
          __m512 sum;
          if (span.bits == 0xffffffffu) {
            sum = _mm512_add_ps(half_chunk(words, entries),
                                half_chunk(_mm512_srli_epi32(words, 16), entries + kChunkBytes / 2));
          } else if (span.bits == 0x0000ffffu) {
            sum = half_chunk(words, entries);
          } else {
            sum = half_chunk(_mm512_srli_epi32(words, 16), entries + kChunkBytes / 2);
          }
          // A power of two is an exact factor: the codes' planes share one sum.
          __m512& total = sums[r][P ? b : 0];
          total = P ? _mm512_add_ps(total, sum) : _mm512_fmadd_ps(sum, _mm512_set1_ps(1 << b), total);
        }
      }
    }
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      LUTRA_UNROLL
      for (int b = 0; b < kSums; ++b) t[r][b] = _mm512_add_ps(t[r][b], sums[r][b]);
    }
  }
};

}  // namespace

void lut_gemm_avx512_build_exact(const float* x, int64_t cols, int64_t group_size, int64_t block,
                                 const LutTables& tables) {
  float padded[kLutBlock];
  float sums16[4];
  __m512 fp[16];
  lut_block_tables(lut_block(x, cols, block, padded), fp, sums16);
  lut_store_sums(sums16, block, cols, group_size, tables.sums);
  tables.steps[block] = 1.0f;
  float* entries = reinterpret_cast<float*>(tables.entries + block * 2 * Exact::kChunkBytes);
  _Pragma("GCC unroll 16") for (int q = 0; q < 16; ++q) _mm512_store_ps(entries + 16 * q, fp[q]);
}

void lut_gemm_avx512_exact(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Exact>(tile, tables, y, accumulate);
}

}  // namespace lutra
