// Fast and accurate modes by vpdpbusd on ymm registers: four products of a code byte and a digit join an int32 at once.
//
// Codes stay where they lie in their byte, so that they need no shift; each place in the byte has its own sum, which is
// an exact multiple of the place's power of two and is divided by it at the end.
//
// Bounds: vpdpbusd wraps, its products do not: |code in place * digit| <= 240 * 128 < 2^15. A span has 64 columns, of
// which a place has a quarter at least of B = 2 and planes, half of 3 and 4 bits: 32 * 240 * 128 < 2^20; times 256:
// 64 * 15 * 32639 < 2^25 once the place is divided out.
#include "kernels/lut_gemm/lut_gemm_avx2_integer.h"
#include "kernels/lut_gemm/lut_gemm_avxvnni.h"

namespace lutra {

namespace {

struct DotProduct {
  template <int Digits, class Codes>
  struct Sums {
    __m256i places[Digits][Codes::kFields];
    inline __attribute__((always_inline)) Sums() {
      LUTRA_UNROLL
      for (int d = 0; d < Digits; ++d) {
        LUTRA_UNROLL
        for (int f = 0; f < Codes::kFields; ++f) places[d][f] = _mm256_setzero_si256();
      }
    }
    inline __attribute__((always_inline)) void add_chunk(const Codes& codes, const uint8_t* entries) {
      LUTRA_UNROLL
      for (int p = 0; p < 8; ++p) {
        const __m256i code = codes.in_place(p);
        LUTRA_UNROLL
        for (int d = 0; d < Digits; ++d) {
          int32_t digits;
          __builtin_memcpy(&digits, entries + 32 * d + 4 * p, 4);
          lut_add_dot(places[d][Codes::field(p)], code, _mm256_set1_epi32(digits));
        }
      }
    }
    inline __attribute__((always_inline)) __m256i digit(int d) const {
      __m256i sum = places[d][0];
      LUTRA_UNROLL
      for (int f = 1; f < Codes::kFields; ++f)
        sum = _mm256_add_epi32(sum, _mm256_srai_epi32(places[d][f], f * Codes::kBits));
      return sum;
    }
  };
};

}  // namespace

void lut_gemm_avxvnni_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<LutInteger<DotProduct, 1>>(tile, tables, y, accumulate);
}

void lut_gemm_avxvnni_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<LutInteger<DotProduct, 2>>(tile, tables, y, accumulate);
}

}  // namespace lutra
