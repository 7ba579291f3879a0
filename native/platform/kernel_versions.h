// The rule by which a family of kernels that has one version an instruction set picks among them. Baseline code: never
// included by an ISA file.
#pragma once

#include <cstring>

#include "platform/cpu_features.h"

namespace lutra {

constexpr uint32_t kAvx2Kernels = kAvx2 | kFma | kF16c;
constexpr uint32_t kAvx512Kernels = kAvx2Kernels | kAvx512;

// The versions of one family. A null pointer: not compiled for this processor.
template <typename Kernels>
struct KernelVersions {
  const Kernels* scalar = nullptr;
  const Kernels* avx2 = nullptr;
  const Kernels* avx512 = nullptr;

  // The named version, or null where it was not compiled or this machine may not run it. A null name: the best one.
  const Kernels* find(const char* name) const {
    const uint32_t usable = cpu_features() & allowed_features();
    const bool run_avx512 = avx512 && (usable & kAvx512Kernels) == kAvx512Kernels;
    const bool run_avx2 = avx2 && (usable & kAvx2Kernels) == kAvx2Kernels;
    if (!name) return run_avx512 ? avx512 : run_avx2 ? avx2 : scalar;
    if (!std::strcmp(name, "avx512")) return run_avx512 ? avx512 : nullptr;
    if (!std::strcmp(name, "avx2")) return run_avx2 ? avx2 : nullptr;
    return std::strcmp(name, "scalar") ? nullptr : scalar;
  }
};

}  // namespace lutra
