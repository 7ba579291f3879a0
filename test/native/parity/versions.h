// Every version of a kernel family that this machine can run.
#pragma once

#include <vector>

#include "platform/isa.h"

namespace lutra::test {

// find: the family's selector by name.
template <typename Kernels>
std::vector<const Kernels*> versions(const Kernels* (*find)(const char*)) {
  std::vector<const Kernels*> all;
  for (const IsaLevel& level : isa_levels_here())
    if (const Kernels* kernels = find(level.name)) all.push_back(kernels);
  return all;
}

}  // namespace lutra::test
