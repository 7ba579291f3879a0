#include "platform/cpu_features.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../harness.h"
#include "platform/isa.h"

using namespace lutra;

namespace {

// A Sapphire Rapids under Linux: everything there is, every state saved (x87, SSE, AVX, opmask, zmm, tiles).
constexpr X86Words everything() {
  X86Words words;
  words.leaf1_ecx = 1u << 12 | 1u << 27 | 1u << 29;            // FMA, OSXSAVE, F16C
  words.leaf7_ebx = 1u << 5 | 1u << 16 | 1u << 17 | 3u << 30;  // AVX2, AVX-512 F, DQ, BW, VL
  words.leaf7_ecx = 1u << 1 | 1u << 11;                        // VBMI, VNNI
  words.leaf7_edx = 1u << 22 | 1u << 24 | 1u << 25;            // AMX-BF16, AMX-TILE, AMX-INT8
  words.leaf7_1_eax = 1u << 4 | 1u << 5;                       // AVX-VNNI, AVX512-BF16
  words.xcr0 = 0x600e7;
  return words;
}

Isa isa_of(const X86Words& words) { return best_isa(x86_features(words)); }

constexpr uint32_t kArm = kNeon | kDotProduct | kInt8Matrix;

}  // namespace

LUTRA_TEST(platform, every_feature_is_seen) {
  CHECK(x86_features(everything()) == (kEveryFeature & ~kArm));
  CHECK(x86_features(X86Words{}) == 0);
}

// Registers that the operating system does not save belong to whatever process ran last.
LUTRA_TEST(platform, no_feature_without_its_saved_state) {
  X86Words words = everything();
  const uint32_t amx = kAmxTile | kAmxInt8 | kAmxBf16;
  const uint32_t avx512 = kAvx512 | kAvx512Vnni | kAvx512Vbmi | kAvx512Bf16;
  for (int state : {17, 18}) {
    words.xcr0 = everything().xcr0 & ~(uint64_t{1} << state);
    CHECK(x86_features(words) == (x86_features(everything()) & ~amx));
    CHECK(isa_of(words) == Isa::kAvx512Vbmi);
  }
  for (int state : {5, 6, 7}) {  // opmask, upper halves of zmm0-15, zmm16-31
    words.xcr0 = everything().xcr0 & ~(uint64_t{1} << state);
    CHECK(x86_features(words) == (x86_features(everything()) & ~amx & ~avx512));
    CHECK(isa_of(words) == Isa::kAvxVnni);
  }
  for (int state : {1, 2}) {  // SSE, AVX
    words.xcr0 = everything().xcr0 & ~(uint64_t{1} << state);
    CHECK(x86_features(words) == 0);
  }
  words = everything();
  words.leaf1_ecx &= ~(1u << 27);
  CHECK(x86_features(words) == 0);
}

LUTRA_TEST(platform, levels_of_processors) {
  X86Words haswell = everything();
  haswell.leaf7_ebx = 1u << 5;
  haswell.leaf7_ecx = haswell.leaf7_edx = haswell.leaf7_1_eax = 0;
  haswell.xcr0 = 0x7;
  CHECK(isa_of(haswell) == Isa::kAvx2);
  X86Words alder_lake = haswell;
  alder_lake.leaf7_1_eax = 1u << 4;
  CHECK(isa_of(alder_lake) == Isa::kAvxVnni);
  X86Words skylake_server = everything();
  skylake_server.leaf7_ecx = skylake_server.leaf7_edx = skylake_server.leaf7_1_eax = 0;
  skylake_server.xcr0 = 0xe7;
  CHECK(isa_of(skylake_server) == Isa::kAvx512);
  X86Words cascade_lake = skylake_server;
  cascade_lake.leaf7_ecx = 1u << 11;
  CHECK(isa_of(cascade_lake) == Isa::kAvx512);
  X86Words ice_lake = cascade_lake;
  ice_lake.leaf7_ecx |= 1u << 1;
  CHECK(isa_of(ice_lake) == Isa::kAvx512Vbmi);
  CHECK(isa_of(everything()) == Isa::kAmx);
}

// One missing bit of AVX-512 or AMX takes the whole level with it.
LUTRA_TEST(platform, levels_are_whole) {
  for (int missing : {16, 17, 30, 31}) {
    X86Words words = everything();
    words.leaf7_ebx &= ~(1u << missing);
    CHECK(isa_of(words) == Isa::kAvxVnni);
  }
  for (int missing : {22, 24, 25}) {
    X86Words words = everything();
    words.leaf7_edx &= ~(1u << missing);
    CHECK(isa_of(words) == Isa::kAvx512Vbmi);
  }
}

LUTRA_TEST(platform, usable_features_are_this_machines) {
  CHECK((usable_features() & ~cpu_features()) == 0);
  CHECK(cpu_features() == cpu_features());
}

// A process that may not use the tiles does not ask for their state, nor pay for it.
#if defined(__x86_64__) && defined(__linux__)
LUTRA_TEST(platform, tiles_are_requested_where_they_are_used) {
  const bool used = (usable_features() & kAmxTile) != 0;
  constexpr long kGetPermission = 0x1022;  // ARCH_GET_XCOMP_PERM
  uint64_t permitted = 0;
  if (syscall(SYS_arch_prctl, kGetPermission, &permitted) != 0)
    return lutra::test::skip("this Linux grants no register states");
  CHECK(((permitted >> 18) & 1) == used);
}
#endif
