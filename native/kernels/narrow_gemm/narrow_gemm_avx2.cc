#include <immintrin.h>

#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

constexpr int kRows = 4;
constexpr int kTokens = 2;
static_assert(kRows * kTokens <= kNarrowDots);

// Eight weights as stored, widened; and fewer than eight, the lanes behind them zero.
template <typename W>
__m128i copy_tail(const W* w, int64_t count) {
  alignas(16) W lanes[16 / sizeof(W)] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = w[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
}
__m128i load_eight(const uint16_t* w) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(w)); }
__m128i load_eight(const int8_t* w) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(w)); }

struct F16 {
  using Stored = uint16_t;
  static __m256 widen(__m128i bits) { return _mm256_cvtph_ps(bits); }
};
struct BF16 {
  using Stored = uint16_t;
  static __m256 widen(__m128i bits) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)); }
};
struct I8 {
  using Stored = int8_t;
  static __m256 widen(__m128i bits) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bits)); }
};

__m256i first(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// The sums of four vectors. Each is added up in the same order whatever its neighbours are.
__attribute__((always_inline)) inline __m128 sums_of(const __m256 v[kRows]) {
  const __m256 t01 = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
  const __m256 t23 = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
  const __m256 t = _mm256_add_ps(_mm256_shuffle_ps(t01, t23, 0x44), _mm256_shuffle_ps(t01, t23, 0xee));
  return _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
}

// R rows for T tokens; scales of null: ones.
template <typename W, int T, int R>
void dot_of(const float* x, int64_t x_stride, const typename W::Stored* w, int64_t w_stride, const float* scales,
            int64_t k, float* y, int64_t y_stride) {
  __m256 sum[T][kRows];
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sum[t][r] = _mm256_setzero_ps();
  int64_t kk = 0;
  for (; kk + 8 <= k; kk += 8) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 row = W::widen(load_eight(w + r * w_stride + kk));
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) sum[t][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + t * x_stride + kk), row, sum[t][r]);
    }
  }
  if (kk < k) {
    const __m256i mask = first(k - kk);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 row = W::widen(copy_tail(w + r * w_stride + kk, k - kk));
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t)
        sum[t][r] = _mm256_fmadd_ps(_mm256_maskload_ps(x + t * x_stride + kk, mask), row, sum[t][r]);
    }
  }
  const __m128i live = _mm256_castsi256_si128(first(R));
  const __m128 scale = scales ? _mm_maskload_ps(scales, live) : _mm_set1_ps(1);
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t) _mm_maskstore_ps(y + t * y_stride, live, _mm_mul_ps(scale, sums_of(sum[t])));
}

template <typename W, int T>
void dot_tokens(const float* x, int64_t x_stride, const typename W::Stored* w, int64_t w_stride, const float* scales,
                int64_t rows, int64_t k, float* y, int64_t y_stride) {
  if (rows == kRows) return dot_of<W, T, kRows>(x, x_stride, w, w_stride, scales, k, y, y_stride);
  for (int64_t r = 0; r < rows; ++r)
    dot_of<W, T, 1>(x, x_stride, w + r * w_stride, w_stride, scales ? scales + r : nullptr, k, y + r, y_stride);
}

template <typename W>
void dot_any(const float* x, int64_t x_stride, int64_t tokens, const typename W::Stored* w, int64_t w_stride,
             const float* scales, int64_t rows, int64_t k, float* y, int64_t y_stride) {
  if (tokens == 1) return dot_tokens<W, 1>(x, x_stride, w, w_stride, scales, rows, k, y, y_stride);
  dot_tokens<W, 2>(x, x_stride, w, w_stride, scales, rows, k, y, y_stride);
}

template <typename W>
void dot_half(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride, int64_t rows,
              int64_t k, float* y, int64_t y_stride) {
  dot_any<W>(x, x_stride, tokens, w, w_stride, nullptr, rows, k, y, y_stride);
}

void widen_i8(const int8_t* w, float scale, float* y, int64_t count) {
  const __m256 factor = _mm256_set1_ps(scale);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(y + i, _mm256_mul_ps(factor, I8::widen(load_eight(w + i))));
  if (i < count)
    _mm256_maskstore_ps(y + i, first(count - i), _mm256_mul_ps(factor, I8::widen(copy_tail(w + i, count - i))));
}

}  // namespace

const NarrowGemmKernels narrow_gemm_avx2 = {"avx2",         kRows,       kTokens, dot_half<F16>,
                                            dot_half<BF16>, dot_any<I8>, widen_i8};

}  // namespace lutra
