#include "platform/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lutra {

namespace {

constexpr bool bit(uint32_t word, int index) { return (word >> index) & 1u; }

constexpr int kOsxsave = 27;  // of leaf 1 ecx: xgetbv may be executed

#if defined(__x86_64__)
X86Words read_words() {
  X86Words words;
  uint32_t eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &words.leaf1_ecx, &edx) || !bit(words.leaf1_ecx, kOsxsave)) return words;
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  words.xcr0 = (static_cast<uint64_t>(high) << 32) | low;
  // eax of leaf 7 is its largest subleaf.
  if (!__get_cpuid_count(7, 0, &eax, &words.leaf7_ebx, &words.leaf7_ecx, &words.leaf7_edx)) return words;
  if (eax >= 1) __get_cpuid_count(7, 1, &words.leaf7_1_eax, &ebx, &ecx, &edx);
  return words;
}
#endif

uint32_t detect() {
  uint32_t features = 0;
#if defined(__x86_64__)
  features = x86_features(read_words());
#elif defined(__aarch64__)
  features = kNeon;
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= kDotProduct;
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) features |= kInt8Matrix;
#endif
#endif
  return features;
}

}  // namespace

uint32_t x86_features(const X86Words& words) {
  const auto saved = [&](uint64_t states) { return (words.xcr0 & states) == states; };
  if (!bit(words.leaf1_ecx, kOsxsave) || !saved(0x6)) return 0;  // SSE and AVX state
  uint32_t features = 0;
  const auto add = [&](bool present, Feature feature) {
    if (present) features |= feature;
  };
  add(bit(words.leaf7_ebx, 5), kAvx2);
  add(bit(words.leaf1_ecx, 12), kFma);
  add(bit(words.leaf1_ecx, 29), kF16c);
  add(bit(words.leaf7_1_eax, 4), kAvxVnni);
  if (!saved(0xe6)) return features;  // and opmask, both halves of the zmm state
  const uint32_t ebx = words.leaf7_ebx;
  if (!bit(ebx, 16) || !bit(ebx, 17) || !bit(ebx, 30) || !bit(ebx, 31)) return features;
  features |= kAvx512;
  add(bit(words.leaf7_ecx, 11), kAvx512Vnni);
  add(bit(words.leaf7_ecx, 1), kAvx512Vbmi);
  add(bit(words.leaf7_1_eax, 5), kAvx512Bf16);
  if (!saved(0x600e6) || !bit(words.leaf7_edx, 24)) return features;  // and the tiles, their configuration and data
  features |= kAmxTile;
  add(bit(words.leaf7_edx, 25), kAmxInt8);
  add(bit(words.leaf7_edx, 22), kAmxBf16);
  return features;
}

uint32_t cpu_features() {
  static const uint32_t features = detect();
  return features;
}

bool request_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace lutra
