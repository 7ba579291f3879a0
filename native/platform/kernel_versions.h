// The rule by which a family of kernels picks among its versions. Baseline code: never included by an ISA file.
#pragma once

#include <cstring>

#include "platform/isa.h"

namespace lutra {

// What one family has for one instruction set. A family lists its versions in the order of Isa; levels without one of
// their own take the best below.
template <typename Kernels>
struct KernelVersion {
  Isa isa;
  const Kernels* kernels;
};

// The named level's own version, or null where there is none or `features` do not run it. A null name: the best version
// of the best level that `features` run, which is never more than that level may use.
template <typename Kernels, size_t N>
constexpr const Kernels* find_version(const KernelVersion<Kernels> (&versions)[N], const char* name,
                                      uint32_t features = usable_features()) {
  const uint32_t runs = name ? features : isa_level(best_isa(features)).features;
  const Kernels* best = nullptr;
  for (const KernelVersion<Kernels>& version : versions) {
    if (!isa_runs(version.isa, runs)) continue;
    if (name && !std::strcmp(name, isa_level(version.isa).name)) return version.kernels;
    if (!name) best = version.kernels;
  }
  return best;
}

}  // namespace lutra
