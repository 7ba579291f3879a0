#include "cuda/lut_gemm/decode_instance.cuh"

lutra::cuda::DecodeKernels lutra::cuda::decode_f16_uniform3() { return decode_instances<HalfElement, 3, false>(); }
