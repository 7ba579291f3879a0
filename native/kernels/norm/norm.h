// Root-mean-square normalisation of one row.
#pragma once

#include <cstdint>

namespace lutra {

struct NormKernels {
  const char* name;
  // y = x / sqrt(mean(x^2) + epsilon) * weight over d elements; y may be x.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, float* y, int64_t d);
};

extern const NormKernels norm_scalar;
extern const NormKernels norm_avx2;
extern const NormKernels norm_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const NormKernels& norm_kernels();
const NormKernels* norm_kernels(const char* name);

// The answer in fp64.
void rms_norm_reference(const float* x, const float* weight, float epsilon, double* y, int64_t d);

}  // namespace lutra
