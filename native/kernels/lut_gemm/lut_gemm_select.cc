#include "kernels/lut_gemm/lut_gemm.h"
#include "platform/kernel_versions.h"

namespace lutra {

namespace {
constexpr KernelVersion<LutGemmKernels> kVersions[] = {
    {Isa::kScalar, &kLutGemmScalar},
#if defined(LUTRA_HAVE_AVX2)
    {Isa::kAvx2, &kLutGemmAvx2},
#endif
#if defined(LUTRA_HAVE_AVXVNNI)
    {Isa::kAvxVnni, &kLutGemmAvxVnni},
#endif
#if defined(LUTRA_HAVE_AVX512)
    {Isa::kAvx512, &kLutGemmAvx512},
#endif
#if defined(LUTRA_HAVE_AVX512VBMI)
    {Isa::kAvx512Vbmi, &kLutGemmAvx512Vbmi},
#endif
#if defined(LUTRA_HAVE_AMX)
    {Isa::kAmx, &kLutGemmAmx},
#endif
#if defined(LUTRA_HAVE_NEON)
    {Isa::kNeon, &kLutGemmNeon},
#endif
#if defined(LUTRA_HAVE_NEONDOT)
    {Isa::kNeonDot, &kLutGemmNeonDot},
#endif
#if defined(LUTRA_HAVE_NEONI8MM)
    {Isa::kNeonI8mm, &kLutGemmNeonI8mm},
#endif
};
}  // namespace

const LutGemmKernels* lut_gemm_kernels(const char* name) { return find_version(kVersions, name); }

const LutGemmKernels& lut_gemm_kernels(int bits) {
  static const LutGemmKernels& best = *find_version(kVersions, nullptr);
  return bits >= best.min_bits && bits <= best.max_bits ? best : kLutGemmScalar;
}

}  // namespace lutra
