// The rule by which a family of kernels that has one version an instruction set picks among them. Baseline code: never
// included by an ISA file.
#pragma once

#include <cstring>

#include "platform/cpu_features.h"

namespace lutra {

// The versions of one family. A null pointer: not compiled for this processor.
template <typename Kernels>
struct KernelVersions {
  const Kernels* scalar = nullptr;
  const Kernels* avx2 = nullptr;
  const Kernels* avx512 = nullptr;

  // The named version, or null where it was not compiled or `features` do not run it. A null name: the best one.
  const Kernels* find(const char* name, uint32_t features = cpu_features() & allowed_features()) const {
    const bool run_avx512 = avx512 && (features & kAvx512Set) == kAvx512Set;
    const bool run_avx2 = avx2 && (features & kAvx2Set) == kAvx2Set;
    if (!name) return run_avx512 ? avx512 : run_avx2 ? avx2 : scalar;
    if (!std::strcmp(name, "avx512")) return run_avx512 ? avx512 : nullptr;
    if (!std::strcmp(name, "avx2")) return run_avx2 ? avx2 : nullptr;
    return std::strcmp(name, "scalar") ? nullptr : scalar;
  }
};

}  // namespace lutra
