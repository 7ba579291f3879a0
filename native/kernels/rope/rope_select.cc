#include "kernels/rope/rope.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<RopeKernels> kVersions {
  .scalar = &rope_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &rope_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &rope_avx512,
#endif
};
}  // namespace

const RopeKernels* rope_kernels(const char* name) { return kVersions.find(name); }

const RopeKernels& rope_kernels() {
  static const RopeKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
