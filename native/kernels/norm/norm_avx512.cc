#include <immintrin.h>

#include "kernels/norm/norm.h"

namespace lutra {

namespace {

__mmask16 first(int64_t lanes) {
  return lanes >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << lanes) - 1u);
}

// Squares are summed in fp64: a row of large activations (1e4 and beyond) keeps its small terms.
double sum_of_squares(const float* x, int64_t d) {
  __m512d low = _mm512_setzero_pd();
  __m512d high = _mm512_setzero_pd();
  for (int64_t i = 0; i < d; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first(d - i), x + i);
    const __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    const __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    low = _mm512_fmadd_pd(a, a, low);
    high = _mm512_fmadd_pd(b, b, high);
  }
  return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

void rms_norm(const float* x, const float* weight, float epsilon, float* y, int64_t d) {
  const double mean = sum_of_squares(x, d) / static_cast<double>(d) + epsilon;
  const __m128d root = _mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(mean));
  const __m512 factor = _mm512_set1_ps(static_cast<float>(1.0 / _mm_cvtsd_f64(root)));
  for (int64_t i = 0; i < d; i += 16) {
    const __mmask16 mask = first(d - i);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(mask, weight + i)));
  }
}

}  // namespace

const NormKernels norm_avx512 = {"avx512", rms_norm};

}  // namespace lutra
