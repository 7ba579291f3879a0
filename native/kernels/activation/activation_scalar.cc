#include <cmath>

#include "kernels/activation/activation.h"

namespace lutra {

namespace {

void swiglu(const float* gate, const float* up, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void add(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] += x[i];
}

float max(const float* x, int64_t count) {
  float largest = x[0];
  for (int64_t i = 1; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

double exp_sum(const float* x, float shift, float* y, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += y[i] = std::exp(x[i] - shift);
  return sum;
}

void scale(float* x, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= factor;
}

}  // namespace

const ActivationKernels activation_scalar = {"scalar", swiglu, add, max, exp_sum, scale};

}  // namespace lutra
