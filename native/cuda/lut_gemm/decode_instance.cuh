// What each of decode_<type>_<kind><bits>.cu is: three kernels of one template.
#pragma once

#include "cuda/lut_gemm/decode_kernel.h"
#include "cuda/lut_gemm/decode_kernels.h"

namespace lutra::cuda {

// Two blocks a multiprocessor while 16 columns or fewer leave the registers for it.
template <typename Element, int kBits, bool kPlanes, int kColumnTiles>
__global__ void __launch_bounds__(kDecodeThreads, kColumnTiles <= 2 ? 2 : 1)
    decode(const __grid_constant__ DecodeArguments args) {
  extern __shared__ __align__(16) uint8_t shared[];
  DecodeBlock<Element, kBits, kPlanes, kColumnTiles>::run(args, shared);
}

template <typename Element, int kBits, bool kPlanes>
DecodeKernels decode_instances() {
  return {{reinterpret_cast<const void*>(&decode<Element, kBits, kPlanes, 1>),
           reinterpret_cast<const void*>(&decode<Element, kBits, kPlanes, 2>),
           reinterpret_cast<const void*>(&decode<Element, kBits, kPlanes, 4>)}};
}

}  // namespace lutra::cuda
