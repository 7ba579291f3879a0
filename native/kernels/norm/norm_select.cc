#include "kernels/norm/norm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<NormKernels> kVersions[] = {
    {Isa::kScalar, &norm_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &norm_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &norm_avx512},
#endif
};
}  // namespace

const NormKernels* norm_kernels(const char* name) { return find_version(kVersions, name); }

const NormKernels& norm_kernels() {
  static const NormKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
