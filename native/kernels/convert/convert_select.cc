#include "kernels/convert/convert.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<ConvertKernels> kVersions {
  .scalar = &convert_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &convert_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &convert_avx512,
#endif
};
}  // namespace

const ConvertKernels* convert_kernels(const char* name) { return kVersions.find(name); }

const ConvertKernels& convert_kernels() {
  static const ConvertKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
