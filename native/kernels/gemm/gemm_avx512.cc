// AVX-512: 12 x 32 register tile in fp32 (24 accumulators, two vectors of B, one broadcast of A), 12 x 16 in fp64.
#include <immintrin.h>

#include "kernels/gemm/gemm.h"

namespace lutra {

namespace {

constexpr int kRows = 12;
constexpr int kCols = 32;
constexpr int kCols64 = 16;
constexpr int kDot = 4;
constexpr int kAhead = 16;  // steps of k between a prefetch and its use: panels come from L2

__mmask16 first(int64_t lanes) {
  return lanes >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << (lanes < 0 ? 0 : lanes)) - 1u);
}
__mmask8 first8(int64_t lanes) {
  return lanes >= 8 ? static_cast<__mmask8>(0xff) : static_cast<__mmask8>((1u << (lanes < 0 ? 0 : lanes)) - 1u);
}

void store(float* c, __mmask16 mask, __m512 value, bool add) {
  if (add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), value);
  _mm512_mask_storeu_ps(c, mask, value);
}

// The lines of C are far away and a tile needs them only at its end.
__attribute__((always_inline)) inline void prefetch(const void* c, int64_t stride_bytes, int64_t rows, int64_t bytes) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t line = 0; line < bytes; line += 64)
      _mm_prefetch(static_cast<const char*>(c) + i * stride_bytes + line, _MM_HINT_T0);
}

template <int R>
__attribute__((always_inline)) inline void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                                    int64_t k, __m512 low[R], __m512 high[R]) {
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) low[i] = high[i] = _mm512_setzero_ps();
  for (int64_t kk = 0; kk < k; ++kk, a += a_stride, b += b_stride) {
    const __m512 b0 = _mm512_loadu_ps(b);
    const __m512 b1 = _mm512_loadu_ps(b + 16);
    _mm_prefetch(reinterpret_cast<const char*>(b + kAhead * b_stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(b + kAhead * b_stride + 16), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(a + kAhead * a_stride), _MM_HINT_T0);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const __m512 ai = _mm512_set1_ps(a[i]);
      low[i] = _mm512_fmadd_ps(ai, b0, low[i]);
      high[i] = _mm512_fmadd_ps(ai, b1, high[i]);
    }
  }
}

// R: rows computed, rounded up from the rows wanted.
template <int R>
void tile_of(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float* c, int64_t c_stride,
             int64_t rows, int64_t cols, bool add) {
  prefetch(c, c_stride * 4, rows, cols * 4);
  __m512 low[R];
  __m512 high[R];
  multiply<R>(a, a_stride, b, b_stride, k, low, high);
  const __mmask16 mask0 = first(cols);
  const __mmask16 mask1 = first(cols - 16);
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i)
    if (i < rows) {
      store(c + i * c_stride, mask0, low[i], add);
      if (mask1) store(c + i * c_stride + 16, mask1, high[i], add);
    }
}

void tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float* c, int64_t c_stride,
          int64_t rows, int64_t cols, bool add) {
  if (rows <= 4) return tile_of<4>(a, a_stride, b, b_stride, k, c, c_stride, rows, cols, add);
  if (rows <= 8) return tile_of<8>(a, a_stride, b, b_stride, k, c, c_stride, rows, cols, add);
  tile_of<12>(a, a_stride, b, b_stride, k, c, c_stride, rows, cols, add);
}

// c[0 .. 16) += value.
void add_wide(double* c, __m512 value) {
  _mm512_store_pd(c, _mm512_add_pd(_mm512_load_pd(c), _mm512_cvtps_pd(_mm512_castps512_ps256(value))));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1));
  _mm512_store_pd(c + 8, _mm512_add_pd(_mm512_load_pd(c + 8), high));
}

void tile_to64(const float* a, const float* b, int64_t k, double* c) {
  prefetch(c, kCols * 8, kRows, kCols * 8);
  __m512 low[kRows];
  __m512 high[kRows];
  multiply<kRows>(a, kRows, b, kCols, k, low, high);
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    add_wide(c + i * kCols, low[i]);
    add_wide(c + i * kCols + 16, high[i]);
  }
}

void subtract(double* c, __mmask8 mask, __m512d value) {
  _mm512_mask_storeu_pd(c, mask, _mm512_sub_pd(_mm512_maskz_loadu_pd(mask, c), value));
}

void tile64(const double* a, const double* b, int64_t k, double* c, int64_t c_stride, int64_t rows, int64_t cols) {
  __m512d low[kRows];
  __m512d high[kRows];
  prefetch(c, c_stride * 8, rows, cols * 8);
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) low[i] = high[i] = _mm512_setzero_pd();
  for (int64_t kk = 0; kk < k; ++kk, a += kRows, b += kCols64) {
    const __m512d b0 = _mm512_loadu_pd(b);
    const __m512d b1 = _mm512_loadu_pd(b + 8);
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      const __m512d ai = _mm512_set1_pd(a[i]);
      low[i] = _mm512_fmadd_pd(ai, b0, low[i]);
      high[i] = _mm512_fmadd_pd(ai, b1, high[i]);
    }
  }
  const __mmask8 mask0 = first8(cols);
  const __mmask8 mask1 = first8(cols - 8);
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i)
    if (i < rows) {
      subtract(c + i * c_stride, mask0, low[i]);
      if (mask1) subtract(c + i * c_stride + 8, mask1, high[i]);
    }
}

// Sixteen vectors, one a row, become sixteen vectors, one a column.
__attribute__((always_inline)) inline void transpose(__m512 r[16]) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  // Groups of four rows: r[4g + c] holds columns c, c + 4, c + 8, c + 12 of rows 4g .. 4g + 3.
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const __m512d low0 = _mm512_castps_pd(t[4 * g]);
    const __m512d high0 = _mm512_castps_pd(t[4 * g + 1]);
    const __m512d low1 = _mm512_castps_pd(t[4 * g + 2]);
    const __m512d high1 = _mm512_castps_pd(t[4 * g + 3]);
    r[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(low0, low1));
    r[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low0, low1));
    r[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high0, high1));
    r[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high0, high1));
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 even01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
    const __m512 odd01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
    const __m512 even23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    t[c] = _mm512_shuffle_f32x4(even01, even23, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    t[4 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    t[12 + c] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

void pack_rows(const float* source, int64_t stride, int64_t rows, int64_t k, int64_t tile, float* panel) {
  for (int64_t strip = 0; strip < tile; strip += 16) {
    const __mmask16 lanes = first(tile - strip);
    const int64_t live = rows - strip;  // rows of this strip that exist
    const float* top = source + strip * stride;
    for (int64_t kk = 0; kk < k; kk += 16) {
      const __mmask16 columns = first(k - kk);
      __m512 r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        r[i] = i < live ? _mm512_maskz_loadu_ps(columns, top + i * stride + kk) : _mm512_setzero_ps();
      transpose(r);
      float* out = panel + kk * tile + strip;
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (kk + i < k) _mm512_mask_storeu_ps(out + i * tile, lanes, r[i]);
    }
  }
}

void pack_columns(const float* source, int64_t stride, int64_t columns, int64_t k, int64_t tile, float* panel) {
  for (int64_t kk = 0; kk < k; ++kk)
    for (int64_t strip = 0; strip < tile; strip += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(first(columns - strip), source + kk * stride + strip);
      _mm512_mask_storeu_ps(panel + kk * tile + strip, first(tile - strip), v);
    }
}

template <int T, int R>
__attribute__((always_inline)) inline void step(const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                                                __mmask16 mask, __m512 sum[T][R]) {
  __m512 row[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) row[r] = _mm512_maskz_loadu_ps(mask, w + r * w_stride);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) {
    const __m512 token = _mm512_maskz_loadu_ps(mask, x + t * x_stride);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm512_fmadd_ps(token, row[r], sum[t][r]);
  }
}

template <int T, int R>
void dot_of(const float* x, int64_t x_stride, const float* w, int64_t w_stride, int64_t k, float* y, int64_t y_stride) {
  __m512 sum[T][R];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[t][r] = _mm512_setzero_ps();
  int64_t kk = 0;
  for (; kk + 16 <= k; kk += 16) step<T, R>(x + kk, x_stride, w + kk, w_stride, 0xffff, sum);
  if (kk < k) step<T, R>(x + kk, x_stride, w + kk, w_stride, first(k - kk), sum);
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) y[t * y_stride + r] = _mm512_reduce_add_ps(sum[t][r]);
}

template <int T>
void dot_tokens(const float* x, int64_t x_stride, const float* w, int64_t w_stride, int64_t rows, int64_t k, float* y,
                int64_t y_stride) {
  if (rows == 4) return dot_of<T, 4>(x, x_stride, w, w_stride, k, y, y_stride);
  for (int64_t r = 0; r < rows; ++r) dot_of<T, 1>(x, x_stride, w + r * w_stride, w_stride, k, y + r, y_stride);
}

void dot(const float* x, int64_t x_stride, int64_t tokens, const float* w, int64_t w_stride, int64_t rows, int64_t k,
         float* y, int64_t y_stride) {
  switch (tokens) {
    case 1:
      return dot_tokens<1>(x, x_stride, w, w_stride, rows, k, y, y_stride);
    case 2:
      return dot_tokens<2>(x, x_stride, w, w_stride, rows, k, y, y_stride);
    case 3:
      return dot_tokens<3>(x, x_stride, w, w_stride, rows, k, y, y_stride);
    case 4:
      return dot_tokens<4>(x, x_stride, w, w_stride, rows, k, y, y_stride);
  }
}

}  // namespace

const GemmKernels gemm_avx512 = {"avx512", kRows,   kCols,  tile, tile_to64, pack_rows, pack_columns,
                                 kRows,    kCols64, tile64, kDot, kDot,      dot};

}  // namespace lutra
