#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_bf16_uniform2() {
  return prefill_instances<BFloat16Element, 2, false>();
}
