#include "cuda/lut_gemm/prefill_instance.cuh"

lutra::cuda::PrefillKernels lutra::cuda::prefill_f16_planes2() { return prefill_instances<HalfElement, 2, true>(); }
