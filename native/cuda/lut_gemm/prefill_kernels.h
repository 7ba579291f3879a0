// The prefill kernels that the object holds, as the runtime launches them: one source a type of x, kind and width.
#pragma once

namespace lutra::cuda {

// For blocks of 64 and 128 columns; planes have the first alone.
struct PrefillKernels {
  const void* by_columns[2];
};

PrefillKernels prefill_f16_uniform2();
PrefillKernels prefill_f16_uniform3();
PrefillKernels prefill_f16_uniform4();
PrefillKernels prefill_f16_planes2();
PrefillKernels prefill_f16_planes3();
PrefillKernels prefill_f16_planes4();
PrefillKernels prefill_bf16_uniform2();
PrefillKernels prefill_bf16_uniform3();
PrefillKernels prefill_bf16_uniform4();
PrefillKernels prefill_bf16_planes2();
PrefillKernels prefill_bf16_planes3();
PrefillKernels prefill_bf16_planes4();

// What runs before the product: x in its order, and A x.
struct PrefillSteps {
  const void* lay_out;
  const void* ranks;
};
PrefillSteps prefill_steps_f16();
PrefillSteps prefill_steps_bf16();

}  // namespace lutra::cuda
