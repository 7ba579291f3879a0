#include "kernels/attention/attention.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<AttentionKernels> kVersions[] = {
    {Isa::kScalar, &attention_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &attention_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &attention_avx512},
#endif
};
}  // namespace

const AttentionKernels* attention_kernels(const char* name) { return find_version(kVersions, name); }

const AttentionKernels& attention_kernels() {
  static const AttentionKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
