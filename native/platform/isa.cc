#include "platform/isa.h"

#include <cstdlib>
#include <cstring>

namespace lutra {

namespace {

constexpr bool in_order() {
  for (size_t i = 0; i < std::size(kIsaLevels); ++i)
    if (static_cast<size_t>(kIsaLevels[i].isa) != i) return false;
  return true;
}
static_assert(in_order());

#if defined(__aarch64__)
constexpr size_t kFirst = static_cast<size_t>(Isa::kNeon);
constexpr IsaLevel kHere[] = {kIsaLevels[0], kIsaLevels[kFirst], kIsaLevels[kFirst + 1], kIsaLevels[kFirst + 2]};
constexpr std::span<const IsaLevel> kLevelsHere = kHere;
#elif defined(__x86_64__)
constexpr std::span<const IsaLevel> kLevelsHere = std::span(kIsaLevels).first<static_cast<size_t>(Isa::kNeon)>();
#else
constexpr std::span<const IsaLevel> kLevelsHere = std::span(kIsaLevels).first<1>();
#endif

struct Override {
  bool valid;
  uint32_t allowed;
};

// Read once, as the families' selectors choose once: what is told is what runs.
const Override& isa_override() {
  static const Override chosen = [] {
    const char* name = std::getenv("LUTRA_ISA");
    if (!name || !*name) return Override{true, kEveryFeature};
    for (const IsaLevel& level : kLevelsHere)
      if (!std::strcmp(name, level.name)) return Override{true, level.features};
    return Override{false, kEveryFeature};
  }();
  return chosen;
}

}  // namespace

std::span<const IsaLevel> isa_levels_here() { return kLevelsHere; }

uint32_t usable_features() {
  static const uint32_t usable = [] {
    const uint32_t features = cpu_features() & isa_override().allowed;
    return (features & kEveryAmx) && !request_tiles() ? features & ~kEveryAmx : features;
  }();
  return usable;
}

bool isa_override_valid() { return isa_override().valid; }

const char* isa_name() { return isa_level(best_isa(usable_features())).name; }

}  // namespace lutra
