#include "kernels/gemm/gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<GemmKernels> kVersions[] = {
    {Isa::kScalar, &gemm_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &gemm_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &gemm_avx512},
#endif
};
}  // namespace

const GemmKernels* gemm_kernels(const char* name) { return find_version(kVersions, name); }

const GemmKernels& gemm_kernels() {
  static const GemmKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
