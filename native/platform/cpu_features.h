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

// The instruction sets by everything their object files may use: a version of a kernel runs where the whole set does,
// so that one name says which versions of all families computed a result.
constexpr uint32_t kAvx2Set = kAvx2 | kFma | kF16c;
constexpr uint32_t kAvx512Set = kAvx2Set | kAvx512 | kAvx512Vnni | kAvx512Vbmi;

uint32_t cpu_features();

// The instruction set LUTRA_ISA named at first use, as a mask of the features it allows; all of them when it is unset.
// Names: scalar, avx2, avx512. An unknown name allows everything and is reported by `isa_override_valid`.
uint32_t allowed_features();
bool isa_override_valid();

// The best instruction set among `features`: "avx512", "avx2" or "scalar"; and the one this process uses.
const char* isa_name(uint32_t features);
const char* isa_name();

}  // namespace lutra
