// Fast and accurate modes by vpmaddubsw, and the activations of both for AVX-VNNI too.
//
// vpmaddubsw multiplies unsigned code bytes with signed activation bytes and adds neighbours to 16 bits. A chunk is 8
// such steps, summed in 16 bits, then widened.
//
// No saturation: a step adds two products of a code (15 at most) and a digit (-128..127), a chunk eight steps:
// 8 * 2 * 15 * 128 = 30720 < 32768. 32 bits: two chunks, 2 * 2 * 30720 per lane and digit, times 256: < 2^25.
#include "kernels/lut_gemm/lut_gemm_avx2_integer.h"

namespace lutra {

namespace {

struct MultiplyAdd {
  template <int Digits, class Codes>
  struct Sums {
    __m256i total[Digits];
    inline __attribute__((always_inline)) Sums() {
      LUTRA_UNROLL
      for (int d = 0; d < Digits; ++d) total[d] = _mm256_setzero_si256();
    }
    inline __attribute__((always_inline)) void add_chunk(const Codes& codes, const uint8_t* entries) {
      __m256i words[Digits];
      LUTRA_UNROLL
      for (int p = 0; p < 8; ++p) {
        const __m256i code = codes.step(p);
        LUTRA_UNROLL
        for (int d = 0; d < Digits; ++d) {
          int32_t digits;
          __builtin_memcpy(&digits, entries + 32 * d + 4 * p, 4);
          const __m256i product = _mm256_maddubs_epi16(code, _mm256_set1_epi32(digits));
          words[d] = p == 0 ? product : _mm256_add_epi16(words[d], product);
        }
      }
      LUTRA_UNROLL
      for (int d = 0; d < Digits; ++d)
        total[d] = _mm256_add_epi32(total[d], _mm256_madd_epi16(words[d], _mm256_set1_epi16(1)));
    }
    inline __attribute__((always_inline)) __m256i digit(int d) const { return total[d]; }
  };
};

template <int Digits>
void build(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables& tables) {
  constexpr int64_t kChunkBytes = LutInteger<MultiplyAdd, Digits>::kChunkBytes;
  float padded[kLutBlock];
  float sums16[4];
  tables.steps[block] = lut_round_block<Digits>(lut_block(x, cols, block, padded),
                                                tables.entries + block * 2 * kChunkBytes, kChunkBytes, 32, sums16);
  lut_store_sums(sums16, block, cols, group_size, tables.sums);
}

}  // namespace

void lut_gemm_avx2_build_fast(const float* x, int64_t cols, int64_t group_size, int64_t block,
                              const LutTables& tables) {
  build<1>(x, cols, group_size, block, tables);
}

void lut_gemm_avx2_build_accurate(const float* x, int64_t cols, int64_t group_size, int64_t block,
                                  const LutTables& tables) {
  build<2>(x, cols, group_size, block, tables);
}

void lut_gemm_avx2_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<LutInteger<MultiplyAdd, 1>>(tile, tables, y, accumulate);
}

void lut_gemm_avx2_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<LutInteger<MultiplyAdd, 2>>(tile, tables, y, accumulate);
}

}  // namespace lutra
