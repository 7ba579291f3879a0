#include "core/half.h"
#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

void narrow_gemm_reference(const float* x, int64_t x_stride, const uint16_t* w, int64_t w_stride, bool bf16, int64_t n,
                           int64_t m, int64_t k, double* y) {
  for (int64_t t = 0; t < n; ++t)
    for (int64_t r = 0; r < m; ++r) {
      double sum = 0;
      for (int64_t kk = 0; kk < k; ++kk) {
        const uint16_t bits = w[r * w_stride + kk];
        const double weight = bf16 ? bfloat16_to_float(bits) : half_to_float(bits);
        sum += static_cast<double>(x[t * x_stride + kk]) * weight;
      }
      y[t * m + r] = sum;
    }
}

void narrow_gemm_reference_i8(const float* x, int64_t x_stride, const int8_t* w, int64_t w_stride, const float* scales,
                              int64_t n, int64_t m, int64_t k, double* y) {
  for (int64_t t = 0; t < n; ++t)
    for (int64_t r = 0; r < m; ++r) {
      double sum = 0;
      for (int64_t kk = 0; kk < k; ++kk)
        sum += static_cast<double>(x[t * x_stride + kk]) * static_cast<double>(w[r * w_stride + kk]);
      y[t * m + r] = static_cast<double>(scales[r]) * sum;
    }
}

}  // namespace lutra
