// Elementwise operators and the three passes of a softmax.
#pragma once

#include <cstdint>

namespace lutra {

struct ActivationKernels {
  const char* name;
  // y = gate / (1 + exp(-gate)) * up; y may be gate or up.
  void (*swiglu)(const float* gate, const float* up, float* y, int64_t count);
  // y += x.
  void (*add)(const float* x, float* y, int64_t count);
  // The largest of count >= 1 numbers; unspecified where one is NaN.
  float (*max)(const float* x, int64_t count);
  // y = exp(x - shift), relative error at most 2e-7 where the result is normal; y may be x. Returns the sum in fp64.
  double (*exp_sum)(const float* x, float shift, float* y, int64_t count);
  // x *= factor.
  void (*scale)(float* x, float factor, int64_t count);
};

extern const ActivationKernels activation_scalar;
extern const ActivationKernels activation_avx2;
extern const ActivationKernels activation_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const ActivationKernels& activation_kernels();
const ActivationKernels* activation_kernels(const char* name);

// The answers in fp64.
void swiglu_reference(const float* gate, const float* up, double* y, int64_t count);
void softmax_reference(const float* x, double* y, int64_t count);

}  // namespace lutra
