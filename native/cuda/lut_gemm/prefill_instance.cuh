// What each of prefill_<type>_<kind><bits>.cu is: one template for two widths of a block.
#pragma once

#include "cuda/lut_gemm/prefill_kernel.h"
#include "cuda/lut_gemm/prefill_kernels.h"

namespace lutra::cuda {

template <typename Element, int kBits, bool kPlanes, int kColumns>
__global__ void __launch_bounds__(kPrefillThreads, 1) prefill(const __grid_constant__ PrefillArguments args) {
  extern __shared__ __align__(16) uint8_t shared[];
  PrefillBlock<Element, kBits, kPlanes, prefill_column_tiles(kColumns)>::run(args, shared);
}

template <typename Element, int kBits, bool kPlanes>
PrefillKernels prefill_instances() {
  PrefillKernels kernels = {};
  kernels.by_columns[0] = reinterpret_cast<const void*>(&prefill<Element, kBits, kPlanes, 64>);
  if constexpr (!kPlanes) kernels.by_columns[1] = reinterpret_cast<const void*>(&prefill<Element, kBits, kPlanes, 128>);
  return kernels;
}

}  // namespace lutra::cuda
