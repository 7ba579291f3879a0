#include "platform/kernel_versions.h"

#include <string>

#include "../harness.h"

using namespace lutra;

namespace {

struct Named {
  const char* name;
};
constexpr Named kScalar = {"scalar"};
constexpr Named kAvx2Version = {"avx2"};
constexpr Named kAvx512Version = {"avx512"};
constexpr KernelVersions<Named> kAll = {&kScalar, &kAvx2Version, &kAvx512Version};
constexpr uint32_t kEveryFeature = (kDotProduct << 1) - 1;

}  // namespace

// A manifest names one instruction set: every family must run that set's version, on every processor there may be.
LUTRA_TEST(platform, the_best_version_is_the_one_the_instruction_set_names) {
  for (uint32_t features = 0; features <= kEveryFeature; ++features) {
    const std::string isa = isa_name(features);
    CHECK(kAll.find(nullptr, features)->name == isa);
  }
}

LUTRA_TEST(platform, a_version_runs_only_where_all_its_features_are) {
  for (uint32_t features = 0; features <= kEveryFeature; ++features) {
    CHECK(kAll.find("scalar", features) == &kScalar);
    CHECK((kAll.find("avx2", features) != nullptr) == ((features & kAvx2Set) == kAvx2Set));
    CHECK((kAll.find("avx512", features) != nullptr) == ((features & kAvx512Set) == kAvx512Set));
    CHECK(kAll.find("sse", features) == nullptr);
  }
}

LUTRA_TEST(platform, what_was_not_compiled_is_not_found) {
  constexpr KernelVersions<Named> kBare = {.scalar = &kScalar};
  CHECK(kBare.find(nullptr, kEveryFeature) == &kScalar);
  CHECK(kBare.find("avx2", kEveryFeature) == nullptr);
  CHECK(kBare.find("avx512", kEveryFeature) == nullptr);
}
