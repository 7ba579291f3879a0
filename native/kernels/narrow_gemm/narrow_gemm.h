// Dot products of f32 rows with f16 or bf16 rows read in place: a weight is widened in a register, once per group of
// tokens. Many tokens go another way: the operator widens a block of rows and uses the gemm family.
#pragma once

#include <cstdint>

namespace lutra {

// y[t * y_stride + r] = x[t, :] . w[r, :] for tokens <= dot_tokens and rows <= dot_rows. The fp32 sum's order depends
// on k alone.
using HalfDot = void (*)(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride,
                         int64_t rows, int64_t k, float* y, int64_t y_stride);

struct NarrowGemmKernels {
  const char* name;
  int64_t dot_rows;
  int64_t dot_tokens;
  HalfDot dot_f16;
  HalfDot dot_bf16;
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

}  // namespace lutra
