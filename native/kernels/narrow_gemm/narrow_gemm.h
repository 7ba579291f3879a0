// Dot products of f32 rows with rows kept narrower than f32 and read in place: f16, bf16, or int8 with one f32 scale a
// row. A weight is widened in a register, once per group of tokens. Many tokens go another way: the operator widens a
// block of rows and uses the gemm family.
#pragma once

#include <cstdint>

namespace lutra {

// y[t * y_stride + r] = x[t, :] . w[r, :] for tokens <= dot_tokens and rows <= dot_rows. The fp32 sum's order depends
// on k alone.
using HalfDot = void (*)(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride,
                         int64_t rows, int64_t k, float* y, int64_t y_stride);
// The same for weights scales[r] * w[r, :]: the scale multiplies the finished sum, once.
using Int8Dot = void (*)(const float* x, int64_t x_stride, int64_t tokens, const int8_t* w, int64_t w_stride,
                         const float* scales, int64_t rows, int64_t k, float* y, int64_t y_stride);

constexpr int64_t kNarrowDots = 64;  // results of one dot at most

struct NarrowGemmKernels {
  const char* name;
  int64_t dot_rows;  // dot_rows * dot_tokens <= kNarrowDots
  int64_t dot_tokens;
  HalfDot dot_f16;
  HalfDot dot_bf16;
  Int8Dot dot_i8;
  // y[i] = scale * w[i], rounded to f32.
  void (*widen_i8)(const int8_t* w, float scale, float* y, int64_t count);
};

extern const NarrowGemmKernels narrow_gemm_scalar;
extern const NarrowGemmKernels narrow_gemm_avx2;
extern const NarrowGemmKernels narrow_gemm_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const NarrowGemmKernels& narrow_gemm_kernels();
const NarrowGemmKernels* narrow_gemm_kernels(const char* name);

// The answer: y[n,m] = x[n,k] w[m,k]^T in fp64; w is bf16 where `bf16` is set, f16 otherwise.
void narrow_gemm_reference(const float* x, int64_t x_stride, const uint16_t* w, int64_t w_stride, bool bf16, int64_t n,
                           int64_t m, int64_t k, double* y);
// The same for int8: y[t, r] = scales[r] * (x[t, :] . w[r, :]).
void narrow_gemm_reference_i8(const float* x, int64_t x_stride, const int8_t* w, int64_t w_stride, const float* scales,
                              int64_t n, int64_t m, int64_t k, double* y);

}  // namespace lutra
