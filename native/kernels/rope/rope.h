// Rotary position embedding of one head, half-split layout.
#pragma once

#include <cstdint>

namespace lutra {

struct RopeKernels {
  const char* name;
  // For i < half: (x[i], x[half + i]) becomes (x[i] c[i] - x[half + i] s[i], x[half + i] c[i] + x[i] s[i]), in place.
  void (*rotate)(float* x, const float* cosines, const float* sines, int64_t half);
};

extern const RopeKernels rope_scalar;
extern const RopeKernels rope_avx2;
extern const RopeKernels rope_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const RopeKernels& rope_kernels();
const RopeKernels* rope_kernels(const char* name);

// The answer in fp64.
void rope_reference(const float* x, const float* cosines, const float* sines, int64_t half, double* y);

}  // namespace lutra
