// Many tokens by vpdpbusd on ymm registers.
//
// Bounds: vpdpbusd adds four products of a code and a digit to 32 bits and wraps. A span has 64 columns at most and
// codes are at most 15: |sum| <= 64 * 15 * 128 < 2^17, with two digits 64 * 15 * 32639 < 2^25.
#include "kernels/lut_gemm/lut_gemm_avx2_integer_panel.h"
#include "kernels/lut_gemm/lut_gemm_avxvnni.h"

namespace lutra {

namespace {

struct DotProduct {
  static constexpr int kTokens = 6;

  template <int T, int64_t Stride>
  static inline __attribute__((always_inline)) void add_digits(const uint8_t* panel, const uint8_t* x, int64_t chunks,
                                                               __m256i (&sums)[T][2]) {
    for (int64_t p = 0; p < 8 * chunks; ++p) {
      const __m256i low = lut_panel_codes(panel, p, 0);
      const __m256i high = lut_panel_codes(panel, p, 1);
      LUTRA_UNROLL
      for (int t = 0; t < T; ++t) {
        const __m256i digits = lut_panel_digits(x + t * Stride, p);
        lut_add_dot(sums[t][0], low, digits);
        lut_add_dot(sums[t][1], high, digits);
      }
    }
  }
};

}  // namespace

const LutPanelKernels kLutFastPanelsAvxVnni = lut_byte_panels<DotProduct, 1>("panels of s8 by dpbusd");
const LutPanelKernels kLutAccuratePanelsAvxVnni = lut_byte_panels<DotProduct, 2>("panels of two s8 digits by dpbusd");

}  // namespace lutra
