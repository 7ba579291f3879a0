// Every version of a kernel family that this machine can run.
#pragma once

#include <vector>

namespace lutra::test {

// find: the family's selector by name.
template <typename Kernels>
std::vector<const Kernels*> versions(const Kernels* (*find)(const char*)) {
  std::vector<const Kernels*> all;
  for (const char* name : {"scalar", "avx2", "avx512"})
    if (const Kernels* kernels = find(name)) all.push_back(kernels);
  return all;
}

}  // namespace lutra::test
