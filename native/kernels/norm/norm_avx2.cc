#include <immintrin.h>

#include "kernels/norm/norm.h"

namespace lutra {

namespace {

// Squares are summed in fp64: a row of large activations (1e4 and beyond) keeps its small terms.
double sum_of_squares(const float* x, int64_t d) {
  __m256d low = _mm256_setzero_pd();
  __m256d high = _mm256_setzero_pd();
  int64_t i = 0;
  for (; i + 8 <= d; i += 8) {
    const __m256d a = _mm256_cvtps_pd(_mm_loadu_ps(x + i));
    const __m256d b = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4));
    low = _mm256_fmadd_pd(a, a, low);
    high = _mm256_fmadd_pd(b, b, high);
  }
  low = _mm256_add_pd(low, high);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(low), _mm256_extractf128_pd(low, 1));
  double sum = _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
  for (; i < d; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

void rms_norm(const float* x, const float* weight, float epsilon, float* y, int64_t d) {
  const double mean = sum_of_squares(x, d) / static_cast<double>(d) + epsilon;
  const __m128d root = _mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(mean));
  const float factor = static_cast<float>(1.0 / _mm_cvtsd_f64(root));
  const __m256 factors = _mm256_set1_ps(factor);
  int64_t i = 0;
  for (; i + 8 <= d; i += 8)
    _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), factors), _mm256_loadu_ps(weight + i)));
  for (; i < d; ++i) y[i] = x[i] * factor * weight[i];
}

}  // namespace

const NormKernels norm_avx2 = {"avx2", rms_norm};

}  // namespace lutra
