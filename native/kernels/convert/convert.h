// Bulk conversion between f32 and the two 16-bit formats, rounding to nearest even as core/half.h does.
// A NaN stays a NaN; its payload may change.
#pragma once

#include <cstdint>

namespace lutra {

struct ConvertKernels {
  const char* name;
  void (*f16_to_f32)(const uint16_t* x, float* y, int64_t count);
  void (*bf16_to_f32)(const uint16_t* x, float* y, int64_t count);
  void (*f32_to_f16)(const float* x, uint16_t* y, int64_t count);
  void (*f32_to_bf16)(const float* x, uint16_t* y, int64_t count);
};

// The scalar version is the reference: it applies core/half.h to every element.
extern const ConvertKernels convert_scalar;
extern const ConvertKernels convert_avx2;
extern const ConvertKernels convert_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const ConvertKernels& convert_kernels();
const ConvertKernels* convert_kernels(const char* name);

}  // namespace lutra
