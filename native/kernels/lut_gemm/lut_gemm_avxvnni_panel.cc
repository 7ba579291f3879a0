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

const LutPanelKernels kLutFastPanelsAvxVnni = {
    "panels of s8 by dpbusd",
    kLutBytePanelCols,
    kLutBytePanelBytes,
    kLutBytePanelRoundings,
    kLutBytePanelJoins,
    kLutBlock,
    127.0f,
    0.0,
    0.0,
    lut_gemm_avx2_fast_bytes,
    lut_gemm_avx2_prepare_fast,
    lut_gemm_avx2_expand_bytes,
    lut_panel_multiply<DotProduct, 1>,
};

const LutPanelKernels kLutAccuratePanelsAvxVnni = {
    "panels of two s8 digits by dpbusd",
    kLutBytePanelCols,
    kLutBytePanelBytes,
    kLutBytePanelRoundings,
    kLutBytePanelJoins,
    kLutBlock,
    32639.0f,
    0.0,
    0.0,
    lut_gemm_avx2_accurate_bytes,
    lut_gemm_avx2_prepare_accurate,
    lut_gemm_avx2_expand_bytes,
    lut_panel_multiply<DotProduct, 2>,
};

}  // namespace lutra
