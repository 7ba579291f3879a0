#include "core/half.h"
#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

constexpr int64_t kRows = 4;
constexpr int64_t kTokens = 4;
static_assert(kRows * kTokens <= kNarrowDots);
constexpr int64_t kChunk = 64;  // weights widened at a time, for all tokens

float whole(int8_t w) { return static_cast<float>(w); }

// One row for all tokens: y[t * y_stride].
template <typename W, float (*Widen)(W)>
void dot_row(const float* x, int64_t x_stride, int64_t tokens, const W* w, int64_t k, float scale, float* y,
             int64_t y_stride) {
  float sum[kTokens][4] = {};
  for (int64_t base = 0; base < k; base += kChunk) {
    const int64_t count = k - base < kChunk ? k - base : kChunk;
    float wide[kChunk];
    for (int64_t i = 0; i < count; ++i) wide[i] = Widen(w[base + i]);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = x + t * x_stride + base;
      for (int64_t i = 0; i < count; ++i) sum[t][i % 4] += row[i] * wide[i];
    }
  }
  for (int64_t t = 0; t < tokens; ++t) y[t * y_stride] = scale * ((sum[t][0] + sum[t][2]) + (sum[t][1] + sum[t][3]));
}

template <float (*Widen)(uint16_t)>
void dot(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride, int64_t rows, int64_t k,
         float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r)
    dot_row<uint16_t, Widen>(x, x_stride, tokens, w + r * w_stride, k, 1.0f, y + r, y_stride);
}

void dot_i8(const float* x, int64_t x_stride, int64_t tokens, const int8_t* w, int64_t w_stride, const float* scales,
            int64_t rows, int64_t k, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r)
    dot_row<int8_t, whole>(x, x_stride, tokens, w + r * w_stride, k, scales[r], y + r, y_stride);
}

void widen_i8(const int8_t* w, float scale, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = scale * whole(w[i]);
}

}  // namespace

const NarrowGemmKernels narrow_gemm_scalar = {"scalar", kRows,   kTokens, dot<half_to_float>, dot<bfloat16_to_float>,
                                              dot_i8,   widen_i8};

}  // namespace lutra
