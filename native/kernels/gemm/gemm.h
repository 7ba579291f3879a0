// Dense products on packed panels, and short dot products on unpacked rows.
//
// A panel holds rows of an operand k-major: panel[kk * stride + r] = row r at kk, rows past the end are zero.
// A register tile multiplies a panel of A by a panel of B over all of k, in ascending order of k, one fused
// multiply-add a step: the bits of an output depend on k alone, not on its place in the tile.
#pragma once

#include <cstdint>

namespace lutra {

struct GemmKernels {
  const char* name;

  // fp32 register tile: C[rows, cols] (+)= A B^T. rows <= tile_rows, cols <= tile_cols; both divide kGemmBlock.
  int64_t tile_rows;
  int64_t tile_cols;
  void (*tile)(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float* c,
               int64_t c_stride, int64_t rows, int64_t cols, bool add);
  // The same sum in fp32, added to a whole tile of C in fp64: C[tile_rows, tile_cols] += A B^T, 64-byte aligned.
  void (*tile_to64)(const float* a, const float* b, int64_t k, double* c);
  // Packs `rows` <= tile rows of a row-major operand [rows, k] into a panel of stride `tile`.
  void (*pack_rows)(const float* source, int64_t stride, int64_t rows, int64_t k, int64_t tile, float* panel);
  // Packs `columns` <= tile columns of a k-major operand [k, columns] into a panel of stride `tile`.
  void (*pack_columns)(const float* source, int64_t stride, int64_t columns, int64_t k, int64_t tile, float* panel);

  // fp64 register tile: C[rows, cols] -= A B^T.
  int64_t tile_rows64;
  int64_t tile_cols64;
  void (*tile64)(const double* a, const double* b, int64_t k, double* c, int64_t c_stride, int64_t rows, int64_t cols);

  // y[t * y_stride + r] = x[t, :] . w[r, :] for tokens <= dot_tokens and rows <= dot_rows, read in place.
  int64_t dot_rows;
  int64_t dot_tokens;
  void (*dot)(const float* x, int64_t x_stride, int64_t tokens, const float* w, int64_t w_stride, int64_t rows,
              int64_t k, float* y, int64_t y_stride);
};

// Rows and columns of C that one cache block holds: a multiple of every tile size.
constexpr int64_t kGemmBlock = 96;

extern const GemmKernels gemm_scalar;
extern const GemmKernels gemm_avx2;
extern const GemmKernels gemm_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const GemmKernels& gemm_kernels();
const GemmKernels* gemm_kernels(const char* name);

// The answer: c[n,m] = a[n,k] b[m,k]^T in fp64.
void gemm_reference(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, int64_t m, int64_t k,
                    double* c);
void gemm_reference64(const double* a, int64_t a_stride, const double* b, int64_t b_stride, int64_t n, int64_t m,
                      int64_t k, double* c);

}  // namespace lutra
