#include "kernels/rope/rope.h"

namespace lutra {

namespace {

void rotate(float* x, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * cosines[i] - b * sines[i];
    x[half + i] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

const RopeKernels rope_scalar = {"scalar", rotate};

}  // namespace lutra
