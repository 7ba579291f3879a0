#include "kernels/half_gemm/half_gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<HalfGemmKernels> kVersions[] = {
    {Isa::kScalar, &half_gemm_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &half_gemm_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &half_gemm_avx512},
#endif
};
}  // namespace

const HalfGemmKernels* half_gemm_kernels(const char* name) { return find_version(kVersions, name); }

const HalfGemmKernels& half_gemm_kernels() {
  static const HalfGemmKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
