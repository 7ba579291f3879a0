#include "kernels/half_gemm/half_gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<HalfGemmKernels> kVersions {
  .scalar = &half_gemm_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &half_gemm_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &half_gemm_avx512,
#endif
};
}  // namespace

const HalfGemmKernels* half_gemm_kernels(const char* name) { return kVersions.find(name); }

const HalfGemmKernels& half_gemm_kernels() {
  static const HalfGemmKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
