#include <cmath>

#include "kernels/attention/attention.h"

namespace lutra {

void attention_reference(const float* q, const float* keys, const float* values, int64_t stride, int64_t count,
                         int64_t head_dim, double scale, double* weights, double* out) {
  double largest = -HUGE_VAL;
  for (int64_t j = 0; j < count; ++j) {
    double dot = 0;
    for (int64_t i = 0; i < head_dim; ++i) dot += static_cast<double>(q[i]) * keys[j * stride + i];
    weights[j] = dot * scale;
    largest = weights[j] > largest ? weights[j] : largest;
  }
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) sum += weights[j] = std::exp(weights[j] - largest);
  for (int64_t i = 0; i < head_dim; ++i) out[i] = 0;
  for (int64_t j = 0; j < count; ++j) {
    weights[j] /= sum;
    for (int64_t i = 0; i < head_dim; ++i) out[i] += weights[j] * values[j * stride + i];
  }
}

}  // namespace lutra
