#include "kernels/norm/norm.h"

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

void check_parity(const NormKernels& kernels) {
  for (const Distribution d : {Distribution::kNormal, Distribution::kUniform, Distribution::kOutlier,
                               Distribution::kConstant, Distribution::kZero, Distribution::kDenormal})
    for (int64_t n = 1; n <= 200; n += n < 66 ? 1 : 31) {
      Guarded<float> x(static_cast<size_t>(n), 1), weight(static_cast<size_t>(n), 2), y(static_cast<size_t>(n), 3);
      fill(x.data(), x.size(), d, static_cast<uint64_t>(n));
      fill(weight.data(), weight.size(), Distribution::kNormal, 2);
      std::vector<double> expected(x.size());
      rms_norm_reference(x.data(), weight.data(), 1e-5f, expected.data(), n);
      kernels.rms_norm(x.data(), weight.data(), 1e-5f, y.data(), n);
      for (size_t i = 0; i < y.size(); ++i)
        CHECK_LE(std::fabs(y[i] - expected[i]), 3e-7 * std::fabs(expected[i]) + 1e-44);
      kernels.rms_norm(x.data(), weight.data(), 1e-5f, x.data(), n);
      CHECK(!std::memcmp(x.data(), y.data(), x.size() * sizeof(float)));
    }
}

void norm_that_forgets_the_tail(const float* x, const float* weight, float epsilon, float* y, int64_t d) {
  norm_scalar.rms_norm(x, weight, epsilon, y, d);
  if (d % 16 > 1) norm_scalar.rms_norm(x, weight, epsilon, y, d - 1);
}

}  // namespace

LUTRA_TEST(norm, every_version_agrees_with_the_reference) {
  for (const NormKernels* kernels : versions<NormKernels>(norm_kernels)) check_parity(*kernels);
}

LUTRA_TEST(norm, the_check_sees_a_planted_fault) {
  NormKernels mutant = norm_scalar;
  mutant.rms_norm = norm_that_forgets_the_tail;
  CHECK(catches([&] { check_parity(mutant); }));
}
