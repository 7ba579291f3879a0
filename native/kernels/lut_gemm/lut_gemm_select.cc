#include "kernels/lut_gemm/lut_gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<LutGemmKernels> kVersions {
  .scalar = &kLutGemmScalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &kLutGemmAvx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &kLutGemmAvx512,
#endif
};
}  // namespace

const LutGemmKernels* lut_gemm_kernels(const char* name) { return kVersions.find(name); }

const LutGemmKernels& lut_gemm_kernels(int bits) {
  static const LutGemmKernels& best = *kVersions.find(nullptr);
  return bits >= best.min_bits && bits <= best.max_bits ? best : kLutGemmScalar;
}

}  // namespace lutra
