#include "kernels/attention/attention.h"

namespace lutra {

namespace {

constexpr int64_t kLanes = 8;  // partial sums of one score

float dot(const float* a, const float* b, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  for (int64_t l = 0; i < count; ++i, ++l) lanes[l] += a[i] * b[i];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

void scores(const float* const* q, int64_t rows, const float* keys, int64_t stride, int64_t count, int64_t head_dim,
            float scale, float* scores, int64_t scores_stride) {
  for (int64_t j = 0; j < count; ++j)
    for (int64_t r = 0; r < rows; ++r) scores[r * scores_stride + j] = dot(q[r], keys + j * stride, head_dim) * scale;
}

void mix(const float* weights, int64_t weights_stride, int64_t rows, const float* values, int64_t stride, int64_t count,
         int64_t head_dim, float* const* out) {
  for (int64_t r = 0; r < rows; ++r) {
    float* y = out[r];
    for (int64_t j = 0; j < count; ++j) {
      const float p = weights[r * weights_stride + j];
      for (int64_t i = 0; i < head_dim; ++i) y[i] += p * values[j * stride + i];
    }
  }
}

}  // namespace

const AttentionKernels attention_scalar = {"scalar", scores, mix};

}  // namespace lutra
