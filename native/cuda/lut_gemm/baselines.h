// Kernels of baselines.cu as the runtime launches them.
#pragma once

#include "cuda/lut_gemm/matrix_vector_kernel.h"
#include "cuda/lut_gemm/table_kernel.h"

namespace lutra::cuda {

constexpr int kVectorThreads = 256;

const void* matrix_vector_kernel();
const void* add_kernel();
const void* table_kernel();

}  // namespace lutra::cuda
