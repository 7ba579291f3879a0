// AVX2 and FMA: 6 x 16 register tile in fp32 (12 accumulators, two vectors of B, one broadcast of A), 6 x 8 in fp64.
#include <immintrin.h>

#include "kernels/gemm/gemm.h"

namespace lutra {

namespace {

constexpr int kRows = 6;
constexpr int kCols = 16;
constexpr int kCols64 = 8;
constexpr int kDotRows = 4;
constexpr int kDotTokens = 2;
constexpr int kAhead = 16;  // steps of k between a prefetch and its use: panels come from L2

// All ones in the first `lanes` of 8 32-bit lanes.
__m256i first(int64_t lanes) {
  const int count = lanes < 0 ? 0 : lanes > 8 ? 8 : static_cast<int>(lanes);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
__m256i first4(int64_t lanes) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(lanes), _mm256_setr_epi64x(0, 1, 2, 3)); }

void store(float* c, int64_t lanes, __m256 value, bool add) {
  if (lanes >= 8) {
    if (add) value = _mm256_add_ps(_mm256_loadu_ps(c), value);
    _mm256_storeu_ps(c, value);
  } else if (lanes > 0) {
    const __m256i mask = first(lanes);
    if (add) value = _mm256_add_ps(_mm256_maskload_ps(c, mask), value);
    _mm256_maskstore_ps(c, mask, value);
  }
}

// The lines of C are far away and a tile needs them only at its end.
__attribute__((always_inline)) inline void prefetch(const void* c, int64_t stride_bytes, int64_t rows, int64_t bytes) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t line = 0; line < bytes; line += 64)
      _mm_prefetch(static_cast<const char*>(c) + i * stride_bytes + line, _MM_HINT_T0);
}

__attribute__((always_inline)) inline void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                                    int64_t k, __m256 low[kRows], __m256 high[kRows]) {
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_ps();
  for (int64_t kk = 0; kk < k; ++kk, a += a_stride, b += b_stride) {
    const __m256 b0 = _mm256_loadu_ps(b);
    const __m256 b1 = _mm256_loadu_ps(b + 8);
    _mm_prefetch(reinterpret_cast<const char*>(b + kAhead * b_stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(a + kAhead * a_stride), _MM_HINT_T0);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const __m256 ai = _mm256_set1_ps(a[i]);
      low[i] = _mm256_fmadd_ps(ai, b0, low[i]);
      high[i] = _mm256_fmadd_ps(ai, b1, high[i]);
    }
  }
}

void tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float* c, int64_t c_stride,
          int64_t rows, int64_t cols, bool add) {
  prefetch(c, c_stride * 4, rows, cols * 4);
  __m256 low[kRows];
  __m256 high[kRows];
  multiply(a, a_stride, b, b_stride, k, low, high);
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i)
    if (i < rows) {
      store(c + i * c_stride, cols, low[i], add);
      store(c + i * c_stride + 8, cols - 8, high[i], add);
    }
}

// c[0 .. 8) += value.
void add_wide(double* c, __m256 value) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(value));
  const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1));
  _mm256_store_pd(c, _mm256_add_pd(_mm256_load_pd(c), low));
  _mm256_store_pd(c + 4, _mm256_add_pd(_mm256_load_pd(c + 4), high));
}

void tile_to64(const float* a, const float* b, int64_t k, double* c) {
  prefetch(c, kCols * 8, kRows, kCols * 8);
  __m256 low[kRows];
  __m256 high[kRows];
  multiply(a, kRows, b, kCols, k, low, high);
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) {
    add_wide(c + i * kCols, low[i]);
    add_wide(c + i * kCols + 8, high[i]);
  }
}

void subtract(double* c, int64_t lanes, __m256d value) {
  if (lanes <= 0) return;
  const __m256i mask = first4(lanes);
  _mm256_maskstore_pd(c, mask, _mm256_sub_pd(_mm256_maskload_pd(c, mask), value));
}

void tile64(const double* a, const double* b, int64_t k, double* c, int64_t c_stride, int64_t rows, int64_t cols) {
  __m256d low[kRows];
  __m256d high[kRows];
  prefetch(c, c_stride * 8, rows, cols * 8);
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm256_setzero_pd();
  for (int64_t kk = 0; kk < k; ++kk, a += kRows, b += kCols64) {
    const __m256d b0 = _mm256_loadu_pd(b);
    const __m256d b1 = _mm256_loadu_pd(b + 4);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const __m256d ai = _mm256_set1_pd(a[i]);
      low[i] = _mm256_fmadd_pd(ai, b0, low[i]);
      high[i] = _mm256_fmadd_pd(ai, b1, high[i]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kRows; ++i)
    if (i < rows) {
      subtract(c + i * c_stride, cols, low[i]);
      subtract(c + i * c_stride + 4, cols - 4, high[i]);
    }
}

// Eight vectors, one a row, become eight vectors, one a column.
__attribute__((always_inline)) inline void transpose(__m256 r[8]) {
  __m256 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int g = 0; g < 2; ++g) {
    r[4 * g] = _mm256_shuffle_ps(t[4 * g], t[4 * g + 2], 0x44);
    r[4 * g + 1] = _mm256_shuffle_ps(t[4 * g], t[4 * g + 2], 0xee);
    r[4 * g + 2] = _mm256_shuffle_ps(t[4 * g + 1], t[4 * g + 3], 0x44);
    r[4 * g + 3] = _mm256_shuffle_ps(t[4 * g + 1], t[4 * g + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

void pack_rows(const float* source, int64_t stride, int64_t rows, int64_t k, int64_t tile, float* panel) {
  for (int64_t strip = 0; strip < tile; strip += 8) {
    const __m256i lanes = first(tile - strip);
    const int64_t live = rows - strip;  // rows of this strip that exist
    const float* top = source + strip * stride;
    for (int64_t kk = 0; kk < k; kk += 8) {
      const __m256i columns = first(k - kk);
      __m256 r[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        r[i] = i < live ? _mm256_maskload_ps(top + i * stride + kk, columns) : _mm256_setzero_ps();
      transpose(r);
      float* out = panel + kk * tile + strip;
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        if (kk + i < k) _mm256_maskstore_ps(out + i * tile, lanes, r[i]);
    }
  }
}

void pack_columns(const float* source, int64_t stride, int64_t columns, int64_t k, int64_t tile, float* panel) {
  for (int64_t kk = 0; kk < k; ++kk)
    for (int64_t strip = 0; strip < tile; strip += 8)
      _mm256_maskstore_ps(panel + kk * tile + strip, first(tile - strip),
                          _mm256_maskload_ps(source + kk * stride + strip, first(columns - strip)));
}

float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

template <int T, int R>
void dot_of(const float* x, int64_t x_stride, const float* w, int64_t w_stride, int64_t k, float* y, int64_t y_stride) {
  __m256 sum[T][R];
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm256_setzero_ps();
  int64_t kk = 0;
  for (; kk + 8 <= k; kk += 8) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 row = _mm256_loadu_ps(w + r * w_stride + kk);
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) sum[t][r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + t * x_stride + kk), row, sum[t][r]);
    }
  }
  if (kk < k) {
    const __m256i mask = first(k - kk);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 row = _mm256_maskload_ps(w + r * w_stride + kk, mask);
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

template <int T>
void dot_tokens(const float* x, int64_t x_stride, const float* w, int64_t w_stride, int64_t rows, int64_t k, float* y,
                int64_t y_stride) {
  if (rows == kDotRows) return dot_of<T, kDotRows>(x, x_stride, w, w_stride, k, y, y_stride);
  for (int64_t r = 0; r < rows; ++r) dot_of<T, 1>(x, x_stride, w + r * w_stride, w_stride, k, y + r, y_stride);
}

void dot(const float* x, int64_t x_stride, int64_t tokens, const float* w, int64_t w_stride, int64_t rows, int64_t k,
         float* y, int64_t y_stride) {
  if (tokens == 1) return dot_tokens<1>(x, x_stride, w, w_stride, rows, k, y, y_stride);
  dot_tokens<2>(x, x_stride, w, w_stride, rows, k, y, y_stride);
}

}  // namespace

const GemmKernels gemm_avx2 = {"avx2", kRows,   kCols,  tile,     tile_to64,  pack_rows, pack_columns,
                               kRows,  kCols64, tile64, kDotRows, kDotTokens, dot};

}  // namespace lutra
