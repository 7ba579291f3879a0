// The only place that chooses between the versions of lut_gemm.
#include "kernels/lut_gemm/lut_gemm.h"

namespace lutra {

namespace {

constexpr int kMaxVersions = 3;

// The compiled sets whose features are all among `features`, best first.
struct Versions {
  const LutGemmKernels* sets[kMaxVersions];
  int count = 0;

  explicit Versions(uint32_t features) {
    const LutGemmKernels* const compiled[] = {
#if defined(LUTRA_HAVE_AVX512)
      &kLutGemmAvx512,
#endif
#if defined(LUTRA_HAVE_AVX2)
      &kLutGemmAvx2,
#endif
      &kLutGemmScalar,
    };
    for (const LutGemmKernels* set : compiled)
      if ((set->required & features) == set->required) sets[count++] = set;
  }
};

}  // namespace

const LutGemmKernels& lut_gemm_kernels(int bits) {
  static const Versions allowed(cpu_features() & allowed_features());
  for (int i = 0; i + 1 < allowed.count; ++i)
    if (bits >= allowed.sets[i]->min_bits && bits <= allowed.sets[i]->max_bits) return *allowed.sets[i];
  return kLutGemmScalar;
}

int lut_gemm_versions(const LutGemmKernels* const** versions) {
  static const Versions runnable(cpu_features());
  *versions = runnable.sets;
  return runnable.count;
}

}  // namespace lutra
