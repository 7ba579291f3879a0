#include "kernels/narrow_gemm/narrow_gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<NarrowGemmKernels> kVersions[] = {
    {Isa::kScalar, &narrow_gemm_scalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &narrow_gemm_avx2},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &narrow_gemm_avx512},
#endif
};
}  // namespace

const NarrowGemmKernels* narrow_gemm_kernels(const char* name) { return find_version(kVersions, name); }

const NarrowGemmKernels& narrow_gemm_kernels() {
  static const NarrowGemmKernels& best = *find_version(kVersions, nullptr);
  return best;
}

}  // namespace lutra
