#include "platform/kernel_versions.h"

#include <string>

#include "../harness.h"

using namespace lutra;

namespace {

struct Named {
  const char* name;
};
constexpr Named kNames[] = {{"scalar"}, {"avx2"}, {"avxvnni"}, {"avx512"},  {"avx512vbmi"},
                            {"amx"},    {"neon"}, {"neondot"}, {"neoni8mm"}};
constexpr KernelVersion<Named> kAll[] = {
    {Isa::kScalar, &kNames[0]}, {Isa::kAvx2, &kNames[1]},       {Isa::kAvxVnni, &kNames[2]},
    {Isa::kAvx512, &kNames[3]}, {Isa::kAvx512Vbmi, &kNames[4]}, {Isa::kAmx, &kNames[5]},
    {Isa::kNeon, &kNames[6]},   {Isa::kNeonDot, &kNames[7]},    {Isa::kNeonI8mm, &kNames[8]}};
// As most families are: not every level has a version of its own.
constexpr KernelVersion<Named> kSome[] = {
    {Isa::kScalar, &kNames[0]}, {Isa::kAvxVnni, &kNames[2]}, {Isa::kAvx512Vbmi, &kNames[4]}};

}  // namespace

// A manifest names one instruction set: every family must run that set's version, on every processor there may be.
LUTRA_TEST(platform, the_best_version_is_the_one_the_instruction_set_names) {
  for (uint32_t features = 0; features <= kEveryFeature; ++features)
    CHECK(find_version(kAll, nullptr, features)->name == std::string(isa_level(best_isa(features)).name));
}

// The same name, the same versions: AVX-VNNI beside base AVX-512 changes nothing, since not every such processor has
// it.
LUTRA_TEST(platform, what_the_named_instruction_set_lacks_is_not_chosen) {
  const Named* chosen[std::size(kIsaLevels)] = {};
  for (uint32_t features = 0; features <= kEveryFeature; ++features) {
    const Named* version = find_version(kSome, nullptr, features);
    const Named*& before = chosen[static_cast<size_t>(best_isa(features))];
    CHECK(!before || before == version);
    before = version;
  }
  CHECK(find_version(kSome, nullptr, kAvx512Set | kAvxVnni) == &kNames[0]);
  CHECK(find_version(kSome, nullptr, kAvx2Set | kAvxVnni) == &kNames[2]);
  CHECK(find_version(kSome, nullptr, isa_level(Isa::kAmx).features) == &kNames[4]);
}

LUTRA_TEST(platform, a_version_runs_only_where_all_its_features_are) {
  for (uint32_t features = 0; features <= kEveryFeature; ++features) {
    for (const IsaLevel& level : kIsaLevels) {
      const Named* found = find_version(kAll, level.name, features);
      CHECK((found != nullptr) == ((features & level.features) == level.features));
      CHECK(!found || found->name == std::string(level.name));
    }
    CHECK(find_version(kAll, "sse", features) == nullptr);
  }
}

LUTRA_TEST(platform, what_was_not_compiled_is_not_found) {
  constexpr KernelVersion<Named> kBare[] = {{Isa::kScalar, &kNames[0]}};
  CHECK(find_version(kBare, nullptr, kEveryFeature) == &kNames[0]);
  CHECK(find_version(kBare, "avx2", kEveryFeature) == nullptr);
  CHECK(find_version(kBare, "avx512", kEveryFeature) == nullptr);
}

// "Use no better instruction set": the levels of an architecture get better, and what one allows never exceeds it.
LUTRA_TEST(platform, levels_get_better) {
  const std::span<const IsaLevel> here = isa_levels_here();
  CHECK(here.front().isa == Isa::kScalar);
  for (size_t i = 0; i < here.size(); ++i) {
    CHECK(best_isa(here[i].features) == here[i].isa);
    for (size_t j = 0; j < i; ++j) CHECK((here[i].features & here[j].features) != here[i].features);
  }
}
