#include "kernels/norm/norm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<NormKernels> kVersions {
  .scalar = &norm_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &norm_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &norm_avx512,
#endif
};
}  // namespace

const NormKernels* norm_kernels(const char* name) { return kVersions.find(name); }

const NormKernels& norm_kernels() {
  static const NormKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
