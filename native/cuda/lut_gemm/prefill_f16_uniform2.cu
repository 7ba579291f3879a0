#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_f16_uniform2() { return prefill_instances<HalfElement, 2, false>(); }
