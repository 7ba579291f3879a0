// NEON with byte matrix products: SMMLA panels for many tokens.
//
// SMMLA multiplies 2 rows of 8 bytes with 2 tokens of 8 bytes: lanes are (row 0, token 0), (row 0, token 1),
// (row 1, token 0), (row 1, token 1).
#include "kernels/lut_gemm/lut_gemm_neon_integer.h"

namespace lutra {

namespace {

// A run of a panel is [half][64 rows][8 bytes], of prepared activations [half][2 tokens][8 bytes]. Sums:
// [token pair][4 pairs of rows].
struct Smmla {
  static constexpr int kRows = 8;
  static constexpr int kTokens = 4;
  static constexpr int64_t kRowBytes = 8;

  static inline int64_t x_at(int digit, int64_t run) { return 2 * (digit * kLutIntegerCols + run * kLutRun); }

  static inline void store_x(int8x16_t bytes, int64_t token, int digit, int digits, int64_t run, int8_t* out) {
    out += token / 2 * 2 * digits * kLutIntegerCols + x_at(digit, run) + token % 2 * 8;
    vst1_s8(out, vget_low_s8(bytes));
    vst1_s8(out + 16, vget_high_s8(bytes));
  }

  static inline __attribute__((always_inline)) void store_codes(const uint32x4_t* slices, int64_t row, uint8_t* run) {
    LUTRA_UNROLL
    for (int half = 0; half < 2; ++half) {
      uint8_t* at = run + (half * kLutTileRows + row) * kRowBytes;
      vst1q_u8(at, vreinterpretq_u8_u32(vzip1q_u32(slices[2 * half], slices[2 * half + 1])));
      vst1q_u8(at + 16, vreinterpretq_u8_u32(vzip2q_u32(slices[2 * half], slices[2 * half + 1])));
    }
  }

  static inline __attribute__((always_inline)) void add_run(int32x4_t* sums, const uint8_t* weights, const int8_t* x,
                                                            int64_t x_stride) {
    LUTRA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int8_t* at = reinterpret_cast<const int8_t*>(weights + half * kLutTileRows * kRowBytes);
      const int8x16x4_t w = vld1q_s8_x4(at);
      LUTRA_UNROLL
      for (int pair = 0; pair < 2; ++pair) {
        const int8x16_t tokens = vld1q_s8(x + pair * 2 * x_stride + half * 16);
        LUTRA_UNROLL
        for (int v = 0; v < 4; ++v) sums[4 * pair + v] = vmmlaq_s32(sums[4 * pair + v], w.val[v], tokens);
      }
    }
  }

  static inline __attribute__((always_inline)) float32x4_t steps(const float* steps, int i) {
    const float32x2_t pair = vld1_f32(steps + i / 4 * 2);
    return vcombine_f32(pair, pair);
  }
  static inline __attribute__((always_inline)) float32x4_t rows(const float32x4_t* sums, int token, int quad) {
    const float32x4_t* pairs = sums + token / 2 * 4 + quad * 2;
    return token % 2 ? vuzp2q_f32(pairs[0], pairs[1]) : vuzp1q_f32(pairs[0], pairs[1]);
  }
};

}  // namespace

const LutGemmKernels kLutGemmNeonI8mm = {
    "neoni8mm",
    2,
    4,
    {1024, 512, 256},
    {LutRounding::kNothing, LutRounding::kTables, LutRounding::kTables},
    lut_gemm_neon_build,
    lut_gemm_neon_multiply,
    lut_integer_panels_for<Smmla>,
    lut_gemm_neon_describe,
};

}  // namespace lutra
