#include "core/half.h"
#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

constexpr int64_t kTokens = 4;
constexpr int64_t kChunk = 64;  // weights widened at a time, for all tokens

template <float (*Widen)(uint16_t)>
void dot(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride, int64_t rows, int64_t k,
         float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    float sum[kTokens][4] = {};
    for (int64_t base = 0; base < k; base += kChunk) {
      const int64_t count = k - base < kChunk ? k - base : kChunk;
      float wide[kChunk];
      for (int64_t i = 0; i < count; ++i) wide[i] = Widen(w[r * w_stride + base + i]);
      for (int64_t t = 0; t < tokens; ++t) {
        const float* row = x + t * x_stride + base;
        for (int64_t i = 0; i < count; ++i) sum[t][i % 4] += row[i] * wide[i];
      }
    }
    for (int64_t t = 0; t < tokens; ++t) y[t * y_stride + r] = (sum[t][0] + sum[t][2]) + (sum[t][1] + sum[t][3]);
  }
}

}  // namespace

const NarrowGemmKernels narrow_gemm_scalar = {"scalar", 4, kTokens, dot<half_to_float>, dot<bfloat16_to_float>};

}  // namespace lutra
