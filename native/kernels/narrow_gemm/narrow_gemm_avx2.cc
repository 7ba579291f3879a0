#include <immintrin.h>

#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

constexpr int kRows = 4;
constexpr int kTokens = 2;

template <bool kBf16>
__m256 widen(__m128i bits) {
  if (kBf16) return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  return _mm256_cvtph_ps(bits);
}

// Fewer than eight 16-bit values; the lanes behind them are zero.
__m128i load_tail(const uint16_t* w, int64_t count) {
  alignas(16) uint16_t lanes[8] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = w[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
}
__m256i first(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

template <bool kBf16, int T, int R>
void dot_of(const float* x, int64_t x_stride, const uint16_t* w, int64_t w_stride, int64_t k, float* y,
            int64_t y_stride) {
  __m256 sum[T][R];
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm256_setzero_ps();
  int64_t kk = 0;
  for (; kk + 8 <= k; kk += 8) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 row = widen<kBf16>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + r * w_stride + kk)));
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) sum[t][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + t * x_stride + kk), row, sum[t][r]);
    }
  }
  if (kk < k) {
    const __m256i mask = first(k - kk);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 row = widen<kBf16>(load_tail(w + r * w_stride + kk, k - kk));
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t)
        sum[t][r] = _mm256_fmadd_ps(_mm256_maskload_ps(x + t * x_stride + kk, mask), row, sum[t][r]);
    }
  }
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) y[t * y_stride + r] = sum_of(sum[t][r]);
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
  if (tokens == 1) return dot_tokens<kBf16, 1>(x, x_stride, w, w_stride, rows, k, y, y_stride);
  dot_tokens<kBf16, 2>(x, x_stride, w, w_stride, rows, k, y, y_stride);
}

}  // namespace

const NarrowGemmKernels narrow_gemm_avx2 = {"avx2", kRows, kTokens, dot<false>, dot<true>};

}  // namespace lutra
