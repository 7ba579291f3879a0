// Which version of every kernel family this process runs, for people who ask.
#pragma once

#include <span>

namespace lutra {

struct KernelChoice {
  const char* family;
  const char* version;  // scalar, avx2, avx512 or neon
};

std::span<const KernelChoice> kernel_choices();

}  // namespace lutra
