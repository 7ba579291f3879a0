#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_bf16_uniform3() {
  return prefill_instances<BFloat16Element, 3, false>();
}
