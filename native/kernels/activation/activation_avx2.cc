#include <immintrin.h>

#include "kernels/activation/activation.h"

namespace lutra {

namespace {

__m256i first(int64_t lanes) {
  const int count = lanes >= 8 ? 8 : static_cast<int>(lanes);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// 2^n for integral n in [-126, 127], as a float.
__m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. The Taylor polynomial of degree 7 leaves
// (ln 2 / 2)^8 / 8! = 5e-9; the rest of the error is rounding. 2^n goes in as two factors, so that subnormal
// results, zero and infinity come out of the last multiplication.
__m256 exp_of(__m256 x) {
  // The operand order of min and max keeps a NaN.
  x = _mm256_max_ps(_mm256_set1_ps(-110.0f), x);
  x = _mm256_min_ps(_mm256_set1_ps(100.0f), x);
  const __m256 n =
      _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln 2 in two parts; the product of n with the first is exact.
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)));
}

__m256 silu_of(__m256 g) {
  const __m256 e = exp_of(_mm256_xor_ps(g, _mm256_set1_ps(-0.0f)));
  return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

void swiglu(const float* gate, const float* up, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(y + i, _mm256_mul_ps(silu_of(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
  if (i < count) {
    const __m256i mask = first(count - i);
    const __m256 silu = silu_of(_mm256_maskload_ps(gate + i, mask));
    _mm256_maskstore_ps(y + i, mask, _mm256_mul_ps(silu, _mm256_maskload_ps(up + i, mask)));
  }
}

void add(const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
  for (; i < count; ++i) y[i] += x[i];
}

float max(const float* x, int64_t count) {
  float largest = x[0];
  int64_t i = 0;
  if (count >= 8) {
    __m256 lanes = _mm256_loadu_ps(x);
    for (i = 8; i + 8 <= count; i += 8) lanes = _mm256_max_ps(lanes, _mm256_loadu_ps(x + i));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    largest = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  for (; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

double exp_sum(const float* x, float shift, float* y, int64_t count) {
  const __m256 shifts = _mm256_set1_ps(shift);
  __m256d low = _mm256_setzero_pd();
  __m256d high = _mm256_setzero_pd();
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i mask = first(count - i);
    const __m256 e = exp_of(_mm256_sub_ps(_mm256_maskload_ps(x + i, mask), shifts));
    _mm256_maskstore_ps(y + i, mask, e);
    const __m256 live = _mm256_and_ps(e, _mm256_castsi256_ps(mask));
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(live)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(live, 1)));
  }
  low = _mm256_add_pd(low, high);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(low), _mm256_extractf128_pd(low, 1));
  return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

void scale(float* x, float factor, int64_t count) {
  const __m256 factors = _mm256_set1_ps(factor);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), factors));
  for (; i < count; ++i) x[i] *= factor;
}

}  // namespace

const ActivationKernels activation_avx2 = {"avx2", swiglu, add, max, exp_sum, scale};

}  // namespace lutra
