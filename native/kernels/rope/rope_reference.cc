#include "kernels/rope/rope.h"

namespace lutra {

void rope_reference(const float* x, const float* cosines, const float* sines, int64_t half, double* y) {
  for (int64_t i = 0; i < half; ++i) {
    const double a = x[i];
    const double b = x[half + i];
    y[i] = a * cosines[i] - b * sines[i];
    y[half + i] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace lutra
