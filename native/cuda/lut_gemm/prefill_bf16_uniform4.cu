#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_bf16_uniform4() {
  return prefill_instances<BFloat16Element, 4, false>();
}
