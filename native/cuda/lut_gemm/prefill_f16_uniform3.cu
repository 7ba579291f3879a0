#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_f16_uniform3() { return prefill_instances<HalfElement, 3, false>(); }
