#include "kernels/gemm/gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<GemmKernels> kVersions {
  .scalar = &gemm_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &gemm_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &gemm_avx512,
#endif
};
}  // namespace

const GemmKernels* gemm_kernels(const char* name) { return kVersions.find(name); }

const GemmKernels& gemm_kernels() {
  static const GemmKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
