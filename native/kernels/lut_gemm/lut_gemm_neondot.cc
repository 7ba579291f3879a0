// NEON with dot products: SDOT panels for many tokens.
//
// SDOT adds four products of bytes to each 32-bit lane. A register of codes is 4 bytes of 4 rows, so a lane is a row;
// the activations are a token's same 4 bytes, taken by element.
#include "kernels/lut_gemm/lut_gemm_neon_integer.h"

namespace lutra {

namespace {

// A run of a panel is [slice][64 rows][4 bytes]. Sums: [token][4 quads of rows].
struct Sdot {
  static constexpr int kRows = 16;
  static constexpr int kTokens = 2;
  static constexpr int64_t kRowBytes = 4;

  static inline int64_t x_at(int digit, int64_t run) { return digit * kLutIntegerCols + run * kLutRun; }

  static inline void store_x(int8x16_t bytes, int64_t token, int digit, int digits, int64_t run, int8_t* out) {
    vst1q_s8(out + token * digits * kLutIntegerCols + x_at(digit, run), bytes);
  }

  static inline __attribute__((always_inline)) void store_codes(const uint32x4_t* slices, int64_t row, uint8_t* run) {
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) vst1q_u8(run + (i * kLutTileRows + row) * kRowBytes, vreinterpretq_u8_u32(slices[i]));
  }

  template <int Slice>
  static inline __attribute__((always_inline)) void add_slice(int32x4_t* sums, const uint8_t* weights, int8x16_t x0,
                                                              int8x16_t x1) {
    const int8_t* at = reinterpret_cast<const int8_t*>(weights + Slice * kLutTileRows * kRowBytes);
    const int8x16x4_t w = vld1q_s8_x4(at);
    LUTRA_UNROLL
    for (int v = 0; v < 4; ++v) {
      sums[v] = vdotq_laneq_s32(sums[v], w.val[v], x0, Slice);
      sums[4 + v] = vdotq_laneq_s32(sums[4 + v], w.val[v], x1, Slice);
    }
  }

  static inline __attribute__((always_inline)) void add_run(int32x4_t* sums, const uint8_t* weights, const int8_t* x,
                                                            int64_t x_stride) {
    const int8x16_t x0 = vld1q_s8(x);
    const int8x16_t x1 = vld1q_s8(x + x_stride);
    add_slice<0>(sums, weights, x0, x1);
    add_slice<1>(sums, weights, x0, x1);
    add_slice<2>(sums, weights, x0, x1);
    add_slice<3>(sums, weights, x0, x1);
  }

  static inline __attribute__((always_inline)) float32x4_t steps(const float* steps, int i) {
    return vdupq_n_f32(steps[i / 4]);
  }
  static inline __attribute__((always_inline)) float32x4_t rows(const float32x4_t* sums, int token, int quad) {
    return sums[token * 4 + quad];
  }
};

}  // namespace

const LutGemmKernels kLutGemmNeonDot = {
    "neondot",
    2,
    4,
    {1024, 512, 256},
    {LutRounding::kNothing, LutRounding::kTables, LutRounding::kTables},
    lut_gemm_neon_build,
    lut_gemm_neon_multiply,
    lut_integer_panels_for<Sdot>,
    lut_gemm_neon_describe,
};

}  // namespace lutra
