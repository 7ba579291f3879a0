// What this processor and this operating system together can execute.
#pragma once

#include <cstdint>

namespace lutra {

// One bit a feature that some kernel requires. A bit is set only where the operating system saves the registers.
enum Feature : uint32_t {
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kF16c = 1u << 2,
  kAvx512 = 1u << 3,  // F, BW, DQ and VL
  kAvx512Vnni = 1u << 4,
  kAvx512Vbmi = 1u << 5,
  kNeon = 1u << 6,
  kDotProduct = 1u << 7,
};

uint32_t cpu_features();

// The instruction set LUTRA_ISA names, as a mask of the features it allows; all of them when it is unset.
// Names: scalar, avx2, avx512, neon. An unknown name allows everything and is reported by `isa_override_valid`.
uint32_t allowed_features();
bool isa_override_valid();

// Best instruction set that features & allowed give: "avx512", "avx2", "neon" or "scalar".
const char* isa_name();

}  // namespace lutra
