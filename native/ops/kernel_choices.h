// Which version of every kernel family this process runs, for people who ask.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lutra {

struct KernelChoice {
  const char* family;
  const char* version;  // the name of an instruction set
};

std::span<const KernelChoice> kernel_choices();

// How lut_gemm multiplies tokens first_token .. last_token together. The last range has no end: last_token is 0.
struct LutChoice {
  const char* mode;
  const char* kind;  // uniform or planes
  int bits;
  int64_t first_token;
  int64_t last_token;
  const char* way;
};

std::vector<LutChoice> lut_choices();

}  // namespace lutra
