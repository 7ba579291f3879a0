// What runs before a prefill product.
#include "cuda/lut_gemm/prefill_activations.h"
#include "cuda/lut_gemm/prefill_branch.h"
#include "cuda/lut_gemm/prefill_kernels.h"

namespace lutra::cuda {

namespace {

template <typename Element>
__global__ void __launch_bounds__(kPrefillThreads) lay_out(const __grid_constant__ PrefillArguments args) {
  lay_out_activations<Element>(args);
}

template <typename Element>
__global__ void __launch_bounds__(kPrefillThreads) ranks(const __grid_constant__ PrefillArguments args) {
  __shared__ __align__(16) uint8_t shared[kBranchShared];
  RankBlock<Element>::run(args, shared);
}

template <typename Element>
PrefillSteps steps() {
  return {reinterpret_cast<const void*>(&lay_out<Element>), reinterpret_cast<const void*>(&ranks<Element>)};
}

}  // namespace

PrefillSteps prefill_steps_f16() { return steps<HalfElement>(); }
PrefillSteps prefill_steps_bf16() { return steps<BFloat16Element>(); }

}  // namespace lutra::cuda
