#include "platform/cpu_features.h"

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lutra {

namespace {

#if defined(__x86_64__)
constexpr bool bit(uint32_t word, int index) { return (word >> index) & 1u; }

// The register states the operating system saves on a context switch.
uint64_t extended_control_register() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}
#endif

uint32_t detect() {
  uint32_t features = 0;
#if defined(__x86_64__)
  uint32_t eax, ebx, ecx, edx;
  constexpr int kOsxsave = 27;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !bit(ecx, kOsxsave)) return 0;
  const uint64_t saved = extended_control_register();
  const bool ymm = (saved & 0x06) == 0x06;  // SSE and AVX state
  const bool zmm = (saved & 0xe6) == 0xe6;  // and opmask, both halves of the zmm state
  const bool fma = bit(ecx, 12);
  const bool f16c = bit(ecx, 29);
  if (!ymm || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
  if (bit(ebx, 5)) features |= kAvx2;
  if (fma) features |= kFma;
  if (f16c) features |= kF16c;
  if (zmm && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31)) {
    features |= kAvx512;
    if (bit(ecx, 11)) features |= kAvx512Vnni;
    if (bit(ecx, 1)) features |= kAvx512Vbmi;
  }
#elif defined(__aarch64__)
  features |= kNeon;
#if defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= kDotProduct;
#endif
#endif
  return features;
}

// -1 where LUTRA_ISA names no instruction set we know.
int64_t read_override() {
  const char* name = std::getenv("LUTRA_ISA");
  if (!name || !*name) return ~uint32_t{0};
  if (!std::strcmp(name, "scalar")) return 0;
  if (!std::strcmp(name, "avx2")) return kAvx2Set;
  if (!std::strcmp(name, "avx512")) return kAvx512Set;
  return -1;
}

// Read once, as the families' selectors choose once: what is told is what runs.
int64_t override_mask() {
  static const int64_t mask = read_override();
  return mask;
}

}  // namespace

uint32_t cpu_features() {
  static const uint32_t features = detect();
  return features;
}

uint32_t allowed_features() {
  const int64_t mask = override_mask();
  return mask < 0 ? ~uint32_t{0} : static_cast<uint32_t>(mask);
}

bool isa_override_valid() { return override_mask() >= 0; }

const char* isa_name(uint32_t features) {
  if ((features & kAvx512Set) == kAvx512Set) return "avx512";
  if ((features & kAvx2Set) == kAvx2Set) return "avx2";
  return "scalar";
}

const char* isa_name() { return isa_name(cpu_features() & allowed_features()); }

}  // namespace lutra
