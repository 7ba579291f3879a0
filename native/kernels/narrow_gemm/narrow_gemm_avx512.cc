#include <immintrin.h>

#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

constexpr int kRows = 4;
constexpr int kTokens = 4;

template <bool kBf16>
__m512 widen(__m256i bits) {
  if (kBf16) return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  return _mm512_cvtph_ps(bits);
}

template <bool kBf16, int T, int R>
__attribute__((always_inline)) inline void step(const float* x, int64_t x_stride, const uint16_t* w, int64_t w_stride,
                                                __mmask16 mask, __m512 sum[T][R]) {
  __m512 row[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) row[r] = widen<kBf16>(_mm256_maskz_loadu_epi16(mask, w + r * w_stride));
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    const __m512 token = _mm512_maskz_loadu_ps(mask, x + t * x_stride);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm512_fmadd_ps(token, row[r], sum[t][r]);
  }
}

template <bool kBf16, int T, int R>
void dot_of(const float* x, int64_t x_stride, const uint16_t* w, int64_t w_stride, int64_t k, float* y,
            int64_t y_stride) {
  __m512 sum[T][R];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm512_setzero_ps();
  int64_t kk = 0;
  for (; kk + 16 <= k; kk += 16) step<kBf16, T, R>(x + kk, x_stride, w + kk, w_stride, 0xffff, sum);
  if (kk < k) step<kBf16, T, R>(x + kk, x_stride, w + kk, w_stride, static_cast<__mmask16>((1u << (k - kk)) - 1u), sum);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) y[t * y_stride + r] = _mm512_reduce_add_ps(sum[t][r]);
}

template <bool kBf16, int T>
void dot_tokens(const float* x, int64_t x_stride, const uint16_t* w, int64_t w_stride, int64_t rows, int64_t k,
                float* y, int64_t y_stride) {
  if (rows == kRows) return dot_of<kBf16, T, kRows>(x, x_stride, w, w_stride, k, y, y_stride);
  for (int64_t r = 0; r < rows; ++r) dot_of<kBf16, T, 1>(x, x_stride, w + r * w_stride, w_stride, k, y + r, y_stride);
}

template <bool kBf16>
void dot(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride, int64_t rows, int64_t k,
         float* y, int64_t y_stride) {
  switch (tokens) {
    case 1:
      return dot_tokens<kBf16, 1>(x, x_stride, w, w_stride, rows, k, y, y_stride);
    case 2:
      return dot_tokens<kBf16, 2>(x, x_stride, w, w_stride, rows, k, y, y_stride);
    case 3:
      return dot_tokens<kBf16, 3>(x, x_stride, w, w_stride, rows, k, y, y_stride);
    case 4:
      return dot_tokens<kBf16, 4>(x, x_stride, w, w_stride, rows, k, y, y_stride);
  }
}

}  // namespace

const NarrowGemmKernels narrow_gemm_avx512 = {"avx512", kRows, kTokens, dot<false>, dot<true>};

}  // namespace lutra
