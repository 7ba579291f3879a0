#include "cuda/lut_gemm/decode_instance.cuh"

lutra::cuda::DecodeKernels lutra::cuda::decode_bf16_planes3() { return decode_instances<BFloat16Element, 3, true>(); }
