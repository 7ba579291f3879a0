#include "cuda/step_kernels.h"

namespace lutra::cuda {

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1)
    run_step(const __grid_constant__ typename Kernel::Arguments args) {
  extern __shared__ __align__(16) uint8_t shared[];
  Kernel::run(args, shared);
}

template <typename Kernel>
const void* step_kernel() {
  return reinterpret_cast<const void*>(&run_step<Kernel>);
}

template const void* step_kernel<ToFragmentsKernel>();
template const void* step_kernel<EmbeddingKernel>();
template const void* step_kernel<RmsNormKernel>();
template const void* step_kernel<RopeKernel>();
template const void* step_kernel<AttentionKernel<1>>();
template const void* step_kernel<AttentionKernel<4>>();
template const void* step_kernel<AttentionKernel<8>>();
template const void* step_kernel<SwigluKernel>();
template const void* step_kernel<ArgMaxKernel>();

}  // namespace lutra::cuda
