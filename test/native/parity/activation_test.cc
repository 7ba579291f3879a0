#include "kernels/activation/activation.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp against std::exp in fp64 over every exponent, both signs, and around the ends of the range.
void check_exp(const ActivationKernels& kernels) {
  std::vector<float> points = {0.0f,  -0.0f, -kInfinity, kInfinity, 88.72f,  88.73f,
                               89.0f, 1e30f, -87.3f,     -103.9f,   -104.1f, -1e30f};
  const uint32_t stride = quick() ? 0x8123 : 0x1235;
  for (uint32_t bits = 0; bits < 0x7f800000u - stride; bits += stride) {
    points.push_back(std::bit_cast<float>(bits));
    points.push_back(-std::bit_cast<float>(bits));
  }
  for (float x = -105.0f; x < 90.0f; x += quick() ? 0.037f : 0.0037f) points.push_back(x);
  std::vector<float> y(points.size());
  kernels.exp_sum(points.data(), 0.0f, y.data(), static_cast<int64_t>(points.size()));
  for (size_t i = 0; i < points.size(); ++i) {
    const double expected = std::exp(static_cast<double>(points[i]));
    if (expected > std::numeric_limits<float>::max()) {
      CHECK(y[i] == kInfinity || y[i] >= 0.9999998f * std::numeric_limits<float>::max());
    } else if (expected < 0x1p-126) {
      CHECK_LE(std::fabs(y[i] - expected) * 0x1p100, 0x1p-149 * 0x1p100);  // one unit of the subnormals
    } else {
      CHECK_LE(std::fabs(y[i] - expected) / expected, 2e-7);
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float out = 0;
  kernels.exp_sum(&nan, 0.0f, &out, 1);
  CHECK(std::isnan(out));
}

void check_size(const ActivationKernels& kernels, int64_t n, Distribution d) {
  const size_t count = static_cast<size_t>(n);
  Guarded<float> x(count, 1), up(count, 2), y(count, 3);
  fill(x.data(), count, d, count);
  fill(up.data(), count, Distribution::kNormal, 7);
  std::vector<double> expected(count);
  swiglu_reference(x.data(), up.data(), expected.data(), n);
  kernels.swiglu(x.data(), up.data(), y.data(), n);
  for (size_t i = 0; i < count; ++i) CHECK_LE(std::fabs(y[i] - expected[i]), 6e-7 * std::fabs(expected[i]) + 1e-44);
  const float largest = kernels.max(x.data(), n);
  CHECK(largest == *std::max_element(x.data(), x.data() + n));
  Guarded<float> e(count, 1);
  const double sum = kernels.exp_sum(x.data(), largest, e.data(), n);
  double wanted = 0;
  for (size_t i = 0; i < count; ++i) wanted += e[i];
  CHECK_LE(std::fabs(sum - wanted), 1e-12 * wanted);
  softmax_reference(x.data(), expected.data(), n);
  kernels.scale(e.data(), static_cast<float>(1 / sum), n);
  // The shifted argument is rounded once: half a unit of it moves exp by as much.
  for (size_t i = 0; i < count; ++i)
    CHECK_LE(std::fabs(e[i] - expected[i]), (5e-7 + 6e-8 * std::fabs(x[i] - largest)) * expected[i] + 1e-44);
  Guarded<float> total(count, 1);
  std::copy(up.data(), up.data() + n, total.data());
  kernels.add(x.data(), total.data(), n);
  for (size_t i = 0; i < count; ++i) CHECK(total[i] == up[i] + x[i]);
}

void check_parity(const ActivationKernels& kernels) {
  check_exp(kernels);
  for (const Distribution d : {Distribution::kNormal, Distribution::kOutlier, Distribution::kConstant,
                               Distribution::kZero, Distribution::kDenormal})
    for (int64_t n = 1; n <= 300; n += n < 66 ? 1 : 61) check_size(kernels, n, d);
}

void add_off_by_one(const float* x, float* y, int64_t count) {
  activation_scalar.add(x, y, count > 16 ? count - 1 : count);
}
double crude_exp_sum(const float* x, float shift, float* y, int64_t count) {
  activation_scalar.exp_sum(x, shift, y, count);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += y[i] *= 1.0000005f;
  return sum;
}

bool sees(const ActivationKernels& mutant) {
  return catches([&] { check_parity(mutant); });
}

}  // namespace

LUTRA_TEST(activation, every_version_agrees_with_the_reference) {
  for (const ActivationKernels* kernels : versions<ActivationKernels>(activation_kernels)) check_parity(*kernels);
}

LUTRA_TEST(activation, the_check_sees_planted_faults) {
  ActivationKernels mutant = activation_scalar;
  mutant.add = add_off_by_one;
  const bool saw_add = sees(mutant);
  mutant = activation_scalar;
  mutant.exp_sum = crude_exp_sum;
  const bool saw_exp = sees(mutant);
  CHECK(saw_add);
  CHECK(saw_exp);
}
