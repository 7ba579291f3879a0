#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_f16_planes3() { return prefill_instances<HalfElement, 3, true>(); }
