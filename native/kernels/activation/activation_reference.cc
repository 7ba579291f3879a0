#include <cmath>

#include "kernels/activation/activation.h"

namespace lutra {

void swiglu_reference(const float* gate, const float* up, double* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const double g = gate[i];
    y[i] = g / (1.0 + std::exp(-g)) * up[i];
  }
}

void softmax_reference(const float* x, double* y, int64_t count) {
  double largest = x[0];
  for (int64_t i = 1; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += y[i] = std::exp(x[i] - largest);
  for (int64_t i = 0; i < count; ++i) y[i] /= sum;
}

}  // namespace lutra
