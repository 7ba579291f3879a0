// The decode kernels that the object holds: one source a type of x, kind and width, so that they compile side by side.
#pragma once

namespace lutra::cuda {

// Kernels for 8, 16 and 32 columns of the matrix unit, as the runtime launches them.
struct DecodeKernels {
  const void* by_columns[3];
};

DecodeKernels decode_f16_uniform2();
DecodeKernels decode_f16_uniform3();
DecodeKernels decode_f16_uniform4();
DecodeKernels decode_f16_planes2();
DecodeKernels decode_f16_planes3();
DecodeKernels decode_f16_planes4();
DecodeKernels decode_bf16_uniform2();
DecodeKernels decode_bf16_uniform3();
DecodeKernels decode_bf16_uniform4();
DecodeKernels decode_bf16_planes2();
DecodeKernels decode_bf16_planes3();
DecodeKernels decode_bf16_planes4();

}  // namespace lutra::cuda
