#include "cuda/lut_gemm/decode_instance.cuh"

lutra::cuda::DecodeKernels lutra::cuda::decode_f16_planes4() { return decode_instances<HalfElement, 4, true>(); }
