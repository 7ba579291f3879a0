#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_f16_planes4() { return prefill_instances<HalfElement, 4, true>(); }
