// What this processor and this operating system together can execute.
#pragma once

#include <cstdint>

namespace lutra {

// One bit a feature that some kernel requires. A bit is set only where the operating system saves the registers.
// lib/native/doctor.ts names them in this order.
enum Feature : uint32_t {
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kF16c = 1u << 2,
  kAvxVnni = 1u << 3,
  kAvx512 = 1u << 4,  // F, BW, DQ and VL
  kAvx512Vnni = 1u << 5,
  kAvx512Vbmi = 1u << 6,
  kAvx512Bf16 = 1u << 7,
  kAmxTile = 1u << 8,
  kAmxInt8 = 1u << 9,
  kAmxBf16 = 1u << 10,
  kNeon = 1u << 11,
  kDotProduct = 1u << 12,
  kInt8Matrix = 1u << 13,  // i8mm
};
constexpr uint32_t kEveryFeature = (1u << 14) - 1;
constexpr uint32_t kEveryAmx = kAmxTile | kAmxInt8 | kAmxBf16;

// What an x86 processor tells of itself. Zero where it does not know the leaf.
struct X86Words {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t leaf7_edx = 0;
  uint32_t leaf7_1_eax = 0;
  uint64_t xcr0 = 0;  // the register states the operating system saves on a context switch
};

// The features these words allow: an instruction counts where its registers are saved too. On Linux the tiles' state is
// granted to a process only on request, which is not part of this.
uint32_t x86_features(const X86Words& words);

// This machine's features.
uint32_t cpu_features();

// Asks Linux for the tiles' state, without which they may not be touched. The grant holds for the whole process,
// threads that already run included, and for good: alternate signal stacks need room for 8 KiB more from then on.
bool request_tiles();

}  // namespace lutra
