// The instruction sets that kernels are compiled for: levels, each by everything its object files may use.
#pragma once

#include <span>

#include "platform/cpu_features.h"

namespace lutra {

// From worse to better on each architecture.
enum class Isa : uint8_t { kScalar, kAvx2, kAvxVnni, kAvx512, kAvx512Vbmi, kAmx, kNeon, kNeonDot, kNeonI8mm };

struct IsaLevel {
  Isa isa;
  const char* name;
  uint32_t features;  // a version of a kernel runs where all of these are
};

constexpr uint32_t kAvx2Set = kAvx2 | kFma | kF16c;
constexpr uint32_t kAvx512Set = kAvx2Set | kAvx512;
// 8-bit tables need VBMI, their sums VNNI. A processor that has one of the two takes the level below.
constexpr uint32_t kAvx512VbmiSet = kAvx512Set | kAvx512Vbmi | kAvx512Vnni;

// Indexed by Isa.
constexpr IsaLevel kIsaLevels[] = {
    {Isa::kScalar, "scalar", 0},
    {Isa::kAvx2, "avx2", kAvx2Set},
    {Isa::kAvxVnni, "avxvnni", kAvx2Set | kAvxVnni},
    {Isa::kAvx512, "avx512", kAvx512Set},
    {Isa::kAvx512Vbmi, "avx512vbmi", kAvx512VbmiSet},
    {Isa::kAmx, "amx", kAvx512VbmiSet | kAvx512Bf16 | kAmxTile | kAmxInt8 | kAmxBf16},
    {Isa::kNeon, "neon", kNeon},
    {Isa::kNeonDot, "neondot", kNeon | kDotProduct},
    {Isa::kNeonI8mm, "neoni8mm", kNeon | kDotProduct | kInt8Matrix},
};

constexpr const IsaLevel& isa_level(Isa isa) { return kIsaLevels[static_cast<size_t>(isa)]; }

constexpr bool isa_runs(Isa isa, uint32_t features) {
  return (isa_level(isa).features & features) == isa_level(isa).features;
}

// The best level that these features run. A result is named by it: whatever level runs a family's best version, its
// features are a part of this one's, so the name says which versions of all families computed it.
constexpr Isa best_isa(uint32_t features) {
  Isa best = Isa::kScalar;
  for (const IsaLevel& level : kIsaLevels)
    if (isa_runs(level.isa, features)) best = level.isa;
  return best;
}

// The levels of the architecture this was compiled for.
std::span<const IsaLevel> isa_levels_here();

// Those features of this machine that LUTRA_ISA, read at first use, leaves: all when it is unset or names no level of
// this architecture, which `isa_override_valid` tells. The first call requests the tiles where they are among them;
// refused, there are none.
uint32_t usable_features();
bool isa_override_valid();

// The level this process uses.
const char* isa_name();

}  // namespace lutra
