#include "cuda/lut_gemm/decode_instance.cuh"

lutra::cuda::DecodeKernels lutra::cuda::decode_f16_uniform2() { return decode_instances<HalfElement, 2, false>(); }
