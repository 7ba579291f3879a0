#include <immintrin.h>

#include "kernels/attention/attention.h"

namespace lutra {

namespace {

constexpr int kKeys = 4;

__m256i first(int64_t lanes) {
  const int count = lanes >= 8 ? 8 : static_cast<int>(lanes);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// The sums of four vectors.
__m128 sums_of(__m256 v0, __m256 v1, __m256 v2, __m256 v3) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(v0, v1), _mm256_hadd_ps(v2, v3));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

void store_scores(float* out, int64_t live, __m128 values) {
  if (live >= kKeys) {
    _mm_storeu_ps(out, values);
  } else {
    _mm_maskstore_ps(out, _mm256_castsi256_si128(first(live)), values);
  }
}

template <int R>
void scores_of(const float* const* q, const float* keys, int64_t stride, int64_t count, int64_t head_dim, float scale,
               float* scores, int64_t scores_stride) {
  const __m128 scales = _mm_set1_ps(scale);
  for (int64_t j = 0; j < count; j += kKeys) {
    // Past the last key its row stands in; those scores are not stored.
    const float* rows[kKeys];
#pragma GCC unroll 4
    for (int l = 0; l < kKeys; ++l) rows[l] = keys + (j + l < count ? j + l : count - 1) * stride;
    __m256 sum[R][kKeys];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int l = 0; l < kKeys; ++l) sum[r][l] = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= head_dim; i += 8) {
#pragma GCC unroll 4
      for (int l = 0; l < kKeys; ++l) {
        const __m256 key = _mm256_loadu_ps(rows[l] + i);
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) sum[r][l] = _mm256_fmadd_ps(_mm256_loadu_ps(q[r] + i), key, sum[r][l]);
      }
    }
    if (i < head_dim) {
      const __m256i mask = first(head_dim - i);
#pragma GCC unroll 4
      for (int l = 0; l < kKeys; ++l) {
        const __m256 key = _mm256_maskload_ps(rows[l] + i, mask);
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) sum[r][l] = _mm256_fmadd_ps(_mm256_maskload_ps(q[r] + i, mask), key, sum[r][l]);
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
      store_scores(scores + r * scores_stride + j, count - j,
                   _mm_mul_ps(sums_of(sum[r][0], sum[r][1], sum[r][2], sum[r][3]), scales));
  }
}

void scores(const float* const* q, int64_t rows, const float* keys, int64_t stride, int64_t count, int64_t head_dim,
            float scale, float* scores, int64_t scores_stride) {
  int64_t r = 0;
  for (; r + 2 <= rows; r += 2)
    scores_of<2>(q + r, keys, stride, count, head_dim, scale, scores + r * scores_stride, scores_stride);
  if (r < rows) scores_of<1>(q + r, keys, stride, count, head_dim, scale, scores + r * scores_stride, scores_stride);
}

// R rows by 32 columns of the head.
template <int R>
void mix_wide(const float* weights, int64_t weights_stride, const float* values, int64_t stride, int64_t count,
              float* const* out, int64_t column) {
  constexpr int kVectors = 4;
  __m256 sum[R][kVectors];
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c) sum[r][c] = _mm256_loadu_ps(out[r] + column + 8 * c);
  for (int64_t j = 0; j < count; ++j) {
    __m256 p[R];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) p[r] = _mm256_set1_ps(weights[r * weights_stride + j]);
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c) {
      const __m256 value = _mm256_loadu_ps(values + j * stride + column + 8 * c);
#pragma GCC unroll 2
      for (int r = 0; r < R; ++r) sum[r][c] = _mm256_fmadd_ps(p[r], value, sum[r][c]);
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c) _mm256_storeu_ps(out[r] + column + 8 * c, sum[r][c]);
}

// One row by at most 8 columns.
void mix_narrow(const float* weights, const float* values, int64_t stride, int64_t count, float* out, __m256i mask) {
  __m256 sum = _mm256_maskload_ps(out, mask);
  for (int64_t j = 0; j < count; ++j)
    sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[j]), _mm256_maskload_ps(values + j * stride, mask), sum);
  _mm256_maskstore_ps(out, mask, sum);
}

void mix(const float* weights, int64_t weights_stride, int64_t rows, const float* values, int64_t stride, int64_t count,
         int64_t head_dim, float* const* out) {
  int64_t i = 0;
  for (; i + 32 <= head_dim; i += 32) {
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2)
      mix_wide<2>(weights + r * weights_stride, weights_stride, values, stride, count, out + r, i);
    if (r < rows) mix_wide<1>(weights + r * weights_stride, weights_stride, values, stride, count, out + r, i);
  }
  for (; i < head_dim; i += 8)
    for (int64_t r = 0; r < rows; ++r)
      mix_narrow(weights + r * weights_stride, values + i, stride, count, out[r] + i, first(head_dim - i));
}

}  // namespace

const AttentionKernels attention_avx2 = {"avx2", scores, mix};

}  // namespace lutra
