#include <immintrin.h>

#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

constexpr int kRows = 4;
constexpr int kTokens = 4;
static_assert(kRows * kTokens <= kNarrowDots);

// Sixteen weights as stored, widened; lanes outside the mask are zero.
struct F16 {
  using Stored = uint16_t;
  static __m512 load(__mmask16 mask, const uint16_t* w) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w)); }
};
struct BF16 {
  using Stored = uint16_t;
  static __m512 load(__mmask16 mask, const uint16_t* w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, w)), 16));
  }
};
struct I8 {
  using Stored = int8_t;
  static __m512 load(__mmask16 mask, const int8_t* w) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, w)));
  }
};

template <typename W, int T, int R>
__attribute__((always_inline)) inline void step(const float* x, int64_t x_stride, const typename W::Stored* w,
                                                int64_t w_stride, __mmask16 mask, __m512 sum[T][kRows]) {
  __m512 row[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) row[r] = W::load(mask, w + r * w_stride);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    const __m512 token = _mm512_maskz_loadu_ps(mask, x + t * x_stride);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm512_fmadd_ps(token, row[r], sum[t][r]);
  }
}

// The sums of four vectors. Each is added up in the same order whatever its neighbours are.
__attribute__((always_inline)) inline __m128 sums_of(const __m512 v[kRows]) {
  const __m512 t01 = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  const __m512 t23 = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  const __m512 t = _mm512_add_ps(_mm512_shuffle_ps(t01, t23, 0x44), _mm512_shuffle_ps(t01, t23, 0xee));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(t), _mm512_extractf32x8_ps(t, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// R rows for T tokens; scales of null: ones.
template <typename W, int T, int R>
void dot_of(const float* x, int64_t x_stride, const typename W::Stored* w, int64_t w_stride, const float* scales,
            int64_t k, float* y, int64_t y_stride) {
  __m512 sum[T][kRows];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sum[t][r] = _mm512_setzero_ps();
  int64_t kk = 0;
  for (; kk + 16 <= k; kk += 16) step<W, T, R>(x + kk, x_stride, w + kk, w_stride, 0xffff, sum);
  if (kk < k) step<W, T, R>(x + kk, x_stride, w + kk, w_stride, static_cast<__mmask16>((1u << (k - kk)) - 1u), sum);
  constexpr __mmask8 kLive = (1 << R) - 1;
  const __m128 scale = scales ? _mm_maskz_loadu_ps(kLive, scales) : _mm_set1_ps(1);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) _mm_mask_storeu_ps(y + t * y_stride, kLive, _mm_mul_ps(scale, sums_of(sum[t])));
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
  switch (tokens) {
    case 1:
      return dot_tokens<W, 1>(x, x_stride, w, w_stride, scales, rows, k, y, y_stride);
    case 2:
      return dot_tokens<W, 2>(x, x_stride, w, w_stride, scales, rows, k, y, y_stride);
    case 3:
      return dot_tokens<W, 3>(x, x_stride, w, w_stride, scales, rows, k, y, y_stride);
    case 4:
      return dot_tokens<W, 4>(x, x_stride, w, w_stride, scales, rows, k, y, y_stride);
  }
}

template <typename W>
void dot_half(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride, int64_t rows,
              int64_t k, float* y, int64_t y_stride) {
  dot_any<W>(x, x_stride, tokens, w, w_stride, nullptr, rows, k, y, y_stride);
}

void widen_i8(const int8_t* w, float scale, float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = count - i >= 16 ? 0xffff : static_cast<__mmask16>((1u << (count - i)) - 1u);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(_mm512_set1_ps(scale), I8::load(mask, w + i)));
  }
}

}  // namespace

const NarrowGemmKernels narrow_gemm_avx512 = {"avx512",       kRows,       kTokens, dot_half<F16>,
                                              dot_half<BF16>, dot_any<I8>, widen_i8};

}  // namespace lutra
