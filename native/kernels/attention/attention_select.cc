#include "kernels/attention/attention.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersions<AttentionKernels> kVersions {
  .scalar = &attention_scalar,
#if defined(LUTRA_HAVE_AVX2)
  .avx2 = &attention_avx2,
#endif
#if defined(LUTRA_HAVE_AVX512)
  .avx512 = &attention_avx512,
#endif
};
}  // namespace

const AttentionKernels* attention_kernels(const char* name) { return kVersions.find(name); }

const AttentionKernels& attention_kernels() {
  static const AttentionKernels& best = *kVersions.find(nullptr);
  return best;
}

}  // namespace lutra
