// The kernels that others are measured against, and the naive form of a sub-branch.
#include "cuda/lut_gemm/baselines.h"

namespace lutra::cuda {

namespace {

__global__ void __launch_bounds__(kVectorThreads) matrix_vector(const __grid_constant__ MatrixVectorArguments args) {
  multiply_row(args);
}

__global__ void __launch_bounds__(kVectorThreads) add(const __grid_constant__ AddArguments args) { add_element(args); }

__global__ void __launch_bounds__(kTableThreads) tables(const __grid_constant__ TableArguments args) {
  __shared__ __align__(16) uint8_t shared[kTableShared];
  table_gemv(args, shared);
}

}  // namespace

const void* matrix_vector_kernel() { return reinterpret_cast<const void*>(&matrix_vector); }
const void* add_kernel() { return reinterpret_cast<const void*>(&add); }
const void* table_kernel() { return reinterpret_cast<const void*>(&tables); }

}  // namespace lutra::cuda
