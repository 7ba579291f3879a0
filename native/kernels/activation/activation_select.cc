#include "kernels/activation/activation.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<ActivationKernels> kVersions {
  .scalar = &activation_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &activation_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &activation_avx512,
#endif
};
}  // namespace

const ActivationKernels* activation_kernels(const char* name) { return kVersions.find(name); }

const ActivationKernels& activation_kernels() {
  static const ActivationKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
