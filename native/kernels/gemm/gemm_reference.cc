#include "kernels/gemm/gemm.h"

namespace lutra {

void gemm_reference(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t n, int64_t m, int64_t k,
                    double* c) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) {
      double sum = 0;
      for (int64_t kk = 0; kk < k; ++kk)
        sum += static_cast<double>(a[i * a_stride + kk]) * static_cast<double>(b[j * b_stride + kk]);
      c[i * m + j] = sum;
    }
}

void gemm_reference64(const double* a, int64_t a_stride, const double* b, int64_t b_stride, int64_t n, int64_t m,
                      int64_t k, double* c) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) {
      double sum = 0;
      for (int64_t kk = 0; kk < k; ++kk) sum += a[i * a_stride + kk] * b[j * b_stride + kk];
      c[i * m + j] = sum;
    }
}

}  // namespace lutra
