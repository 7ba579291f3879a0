// The version for every processor: plain loops over fixed-size accumulators, which the compiler may vectorise.
#include "kernels/gemm/gemm.h"

namespace lutra {

namespace {

constexpr int64_t kRows = 4;
constexpr int64_t kCols = 8;
constexpr int64_t kRows64 = 4;
constexpr int64_t kCols64 = 4;
constexpr int64_t kDotLanes = 8;  // partial sums of one dot product

void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float sum[kRows][kCols]) {
  for (int64_t kk = 0; kk < k; ++kk, a += a_stride, b += b_stride)
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t j = 0; j < kCols; ++j) sum[i][j] += a[i] * b[j];
}

void tile(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float* c, int64_t c_stride,
          int64_t rows, int64_t cols, bool add) {
  float sum[kRows][kCols] = {};
  multiply(a, a_stride, b, b_stride, k, sum);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) c[i * c_stride + j] = add ? c[i * c_stride + j] + sum[i][j] : sum[i][j];
}

void tile_to64(const float* a, const float* b, int64_t k, double* c) {
  float sum[kRows][kCols] = {};
  multiply(a, kRows, b, kCols, k, sum);
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t j = 0; j < kCols; ++j) c[i * kCols + j] += static_cast<double>(sum[i][j]);
}

void tile64(const double* a, const double* b, int64_t k, double* c, int64_t c_stride, int64_t rows, int64_t cols) {
  double sum[kRows64][kCols64] = {};
  for (int64_t kk = 0; kk < k; ++kk, a += kRows64, b += kCols64)
    for (int64_t i = 0; i < kRows64; ++i)
      for (int64_t j = 0; j < kCols64; ++j) sum[i][j] += a[i] * b[j];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) c[i * c_stride + j] -= sum[i][j];
}

void pack_rows(const float* source, int64_t stride, int64_t rows, int64_t k, int64_t tile, float* panel) {
  for (int64_t kk = 0; kk < k; ++kk)
    for (int64_t r = 0; r < tile; ++r) panel[kk * tile + r] = r < rows ? source[r * stride + kk] : 0.0f;
}

void pack_columns(const float* source, int64_t stride, int64_t columns, int64_t k, int64_t tile, float* panel) {
  for (int64_t kk = 0; kk < k; ++kk)
    for (int64_t r = 0; r < tile; ++r) panel[kk * tile + r] = r < columns ? source[kk * stride + r] : 0.0f;
}

float dot_one(const float* x, const float* w, int64_t k) {
  float lanes[kDotLanes] = {};
  int64_t kk = 0;
  for (; kk + kDotLanes <= k; kk += kDotLanes)
    for (int64_t l = 0; l < kDotLanes; ++l) lanes[l] += x[kk + l] * w[kk + l];
  for (int64_t l = 0; kk < k; ++kk, ++l) lanes[l] += x[kk] * w[kk];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

void dot(const float* x, int64_t x_stride, int64_t tokens, const float* w, int64_t w_stride, int64_t rows, int64_t k,
         float* y, int64_t y_stride) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t r = 0; r < rows; ++r) y[t * y_stride + r] = dot_one(x + t * x_stride, w + r * w_stride, k);
}

}  // namespace

const GemmKernels gemm_scalar = {"scalar", kRows,   kCols,  tile, tile_to64, pack_rows, pack_columns,
                                 kRows64,  kCols64, tile64, 4,    4,         dot};

}  // namespace lutra
