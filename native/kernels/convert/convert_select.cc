#include "kernels/convert/convert.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<ConvertKernels> kVersions[] = {
    {Isa::kScalar, &convert_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &convert_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &convert_avx512},
#endif
};
}  // namespace

const ConvertKernels* convert_kernels(const char* name) { return find_version(kVersions, name); }

const ConvertKernels& convert_kernels() {
  static const ConvertKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
