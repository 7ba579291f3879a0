#include <immintrin.h>

#include "kernels/attention/attention.h"

namespace lutra {

namespace {

constexpr int kRows = 4;
constexpr int kKeys = 4;

__mmask16 first(int64_t lanes) {
  return lanes >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << lanes) - 1u);
}

// Sums of sixteen vectors. Lane 4r + j of the result, counted after its 128-bit parts are taken in the order
// 0, 2, 1, 3, is the sum of v[4r + j].
__attribute__((always_inline)) inline __m512 sums_of(const __m512 v[16]) {
  __m512 a[8];
  __m512 b[4];
  __m512 c[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[i], v[i + 8], 0x44), _mm512_shuffle_f32x4(v[i], v[i + 8], 0xee));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    c[i] = _mm512_add_ps(_mm512_shuffle_ps(b[i], b[i + 2], 0x44), _mm512_shuffle_ps(b[i], b[i + 2], 0xee));
  const __m512 d = _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xdd));
  return _mm512_permute_ps(d, 0xd8);
}

// The first `live` of four scores. No masked store: the compiler would fold the extraction into it, and the
// processor raises faults for the masked lanes of vextractf32x4.
void store_scores(float* out, int64_t live, __m128 values) {
  if (live >= kKeys) return _mm_storeu_ps(out, values);
  alignas(16) float lanes[kKeys];
  _mm_store_ps(lanes, values);
  for (int64_t l = 0; l < live; ++l) out[l] = lanes[l];
}

template <int R>
__attribute__((always_inline)) inline void step(const float* const* q, const float* const* keys, int64_t i,
                                                __mmask16 mask, __m512 sum[16]) {
  __m512 key[kKeys];
#pragma GCC unroll 4
  for (int j = 0; j < kKeys; ++j) key[j] = _mm512_maskz_loadu_ps(mask, keys[j] + i);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const __m512 row = _mm512_maskz_loadu_ps(mask, q[r] + i);
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; ++j) sum[4 * r + j] = _mm512_fmadd_ps(row, key[j], sum[4 * r + j]);
  }
}

template <int R>
void scores_of(const float* const* q, const float* keys, int64_t stride, int64_t count, int64_t head_dim, float scale,
               float* scores, int64_t scores_stride) {
  const __m512 scales = _mm512_set1_ps(scale);
  for (int64_t j = 0; j < count; j += kKeys) {
    // Past the last key its row stands in; those scores are not stored.
    const float* rows[kKeys];
#pragma GCC unroll 4
    for (int l = 0; l < kKeys; ++l) rows[l] = keys + (j + l < count ? j + l : count - 1) * stride;
    __m512 sum[16];
#pragma GCC unroll 16
    for (int l = 0; l < 16; ++l) sum[l] = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + 16 <= head_dim; i += 16) step<R>(q, rows, i, 0xffff, sum);
    if (i < head_dim) step<R>(q, rows, i, first(head_dim - i), sum);
    const __m512 all = _mm512_mul_ps(sums_of(sum), scales);
    const int64_t live = count - j;
    float* out = scores + j;
    store_scores(out, live, _mm512_castps512_ps128(all));
    if (R > 1) store_scores(out + scores_stride, live, _mm512_extractf32x4_ps(all, 2));
    if (R > 2) store_scores(out + 2 * scores_stride, live, _mm512_extractf32x4_ps(all, 1));
    if (R > 3) store_scores(out + 3 * scores_stride, live, _mm512_extractf32x4_ps(all, 3));
  }
}

void scores(const float* const* q, int64_t rows, const float* keys, int64_t stride, int64_t count, int64_t head_dim,
            float scale, float* scores, int64_t scores_stride) {
  switch (rows) {
    case 1:
      return scores_of<1>(q, keys, stride, count, head_dim, scale, scores, scores_stride);
    case 2:
      return scores_of<2>(q, keys, stride, count, head_dim, scale, scores, scores_stride);
    case 3:
      return scores_of<3>(q, keys, stride, count, head_dim, scale, scores, scores_stride);
    case 4:
      return scores_of<4>(q, keys, stride, count, head_dim, scale, scores, scores_stride);
  }
}

// R rows by C vectors of the head; `mask` cuts the last vector.
template <int R, int C>
void mix_block(const float* weights, int64_t weights_stride, const float* values, int64_t stride, int64_t count,
               float* const* out, int64_t column, __mmask16 mask) {
  __m512 sum[R][C];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = _mm512_maskz_loadu_ps(c + 1 == C ? mask : 0xffff, out[r] + column + 16 * c);
  for (int64_t j = 0; j < count; ++j) {
    __m512 value[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c)
      value[c] = _mm512_maskz_loadu_ps(c + 1 == C ? mask : 0xffff, values + j * stride + column + 16 * c);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m512 p = _mm512_set1_ps(weights[r * weights_stride + j]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = _mm512_fmadd_ps(p, value[c], sum[r][c]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) _mm512_mask_storeu_ps(out[r] + column + 16 * c, c + 1 == C ? mask : 0xffff, sum[r][c]);
}

template <int R>
void mix_of(const float* weights, int64_t weights_stride, const float* values, int64_t stride, int64_t count,
            int64_t head_dim, float* const* out) {
  int64_t i = 0;
  for (; i + 64 <= head_dim; i += 64) mix_block<R, 4>(weights, weights_stride, values, stride, count, out, i, 0xffff);
  for (; i < head_dim; i += 16)
    mix_block<R, 1>(weights, weights_stride, values, stride, count, out, i, first(head_dim - i));
}

void mix(const float* weights, int64_t weights_stride, int64_t rows, const float* values, int64_t stride, int64_t count,
         int64_t head_dim, float* const* out) {
  switch (rows) {
    case 1:
      return mix_of<1>(weights, weights_stride, values, stride, count, head_dim, out);
    case 2:
      return mix_of<2>(weights, weights_stride, values, stride, count, head_dim, out);
    case 3:
      return mix_of<3>(weights, weights_stride, values, stride, count, head_dim, out);
    case 4:
      return mix_of<4>(weights, weights_stride, values, stride, count, head_dim, out);
  }
}

static_assert(kRows == kAttentionRows);

}  // namespace

const AttentionKernels attention_avx512 = {"avx512", scores, mix};

}  // namespace lutra
