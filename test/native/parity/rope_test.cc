#include "kernels/rope/rope.h"

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

void check_parity(const RopeKernels& kernels) {
  for (const Distribution d :
       {Distribution::kNormal, Distribution::kOutlier, Distribution::kZero, Distribution::kDenormal})
    for (int64_t half = 1; half <= 130; half += half < 34 ? 1 : 16) {
      const size_t count = static_cast<size_t>(half);
      Guarded<float> x(2 * count, 1), cosines(count, 2), sines(count, 3);
      fill(x.data(), x.size(), d, 5);
      for (size_t i = 0; i < count; ++i) {
        cosines[i] = std::cos(0.1f * static_cast<float>(i + 1));
        sines[i] = std::sin(0.1f * static_cast<float>(i + 1));
      }
      std::vector<double> expected(2 * count);
      rope_reference(x.data(), cosines.data(), sines.data(), half, expected.data());
      std::vector<double> size(count);  // of the pair that an output comes from
      for (size_t i = 0; i < count; ++i) size[i] = std::hypot(x[i], x[count + i]);
      kernels.rotate(x.data(), cosines.data(), sines.data(), half);
      for (size_t i = 0; i < 2 * count; ++i) CHECK_LE(std::fabs(x[i] - expected[i]), 2e-7 * size[i % count] + 3e-45);
    }
}

void rotation_the_other_way(float* x, const float* cosines, const float* sines, int64_t half) {
  std::vector<float> negative(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) negative[static_cast<size_t>(i)] = i + 1 == half ? -sines[i] : sines[i];
  rope_scalar.rotate(x, cosines, negative.data(), half);
}

}  // namespace

LUTRA_TEST(rope, every_version_agrees_with_the_reference) {
  for (const RopeKernels* kernels : versions<RopeKernels>(rope_kernels)) check_parity(*kernels);
}

LUTRA_TEST(rope, the_check_sees_a_planted_fault) {
  RopeKernels mutant = rope_scalar;
  mutant.rotate = rotation_the_other_way;
  CHECK(catches([&] { check_parity(mutant); }));
}
