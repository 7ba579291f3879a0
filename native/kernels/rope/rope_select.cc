#include "kernels/rope/rope.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<RopeKernels> kVersions[] = {
    {Isa::kScalar, &rope_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &rope_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &rope_avx512},
#endif
};
}  // namespace

const RopeKernels* rope_kernels(const char* name) { return find_version(kVersions, name); }

const RopeKernels& rope_kernels() {
  static const RopeKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
