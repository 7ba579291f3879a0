#include "kernels/activation/activation.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<ActivationKernels> kVersions[] = {
    {Isa::kScalar, &activation_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &activation_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &activation_avx512},
#endif
};
}  // namespace

const ActivationKernels* activation_kernels(const char* name) { return find_version(kVersions, name); }

const ActivationKernels& activation_kernels() {
  static const ActivationKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
