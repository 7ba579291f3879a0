#include "kernels/convert/convert.h"

#include <bit>

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// The rounding itself, from fp64: the nearest of the 2^16 values, ties to the even pattern.
uint16_t nearest(double value, float (*widen)(uint16_t), uint16_t infinity) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  uint16_t low = 0;
  uint16_t high = infinity;
  while (high - low > 1) {
    const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
    (static_cast<double>(widen(middle)) <= magnitude ? low : high) = middle;
  }
  // Infinity stands for the number that would follow the largest.
  const double below = widen(low);
  const double step = low == 0 ? widen(1) : below - widen(static_cast<uint16_t>(low - 1));
  const double above = high == infinity ? below + step : widen(high);
  const double up = above - magnitude;
  const double down = magnitude - below;
  return sign | (up < down || (up == down && (low & 1)) ? high : low);
}

void check_widening(void (*convert)(const uint16_t*, float*, int64_t), float (*one)(uint16_t)) {
  Guarded<uint16_t> all(65536, 3);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  Guarded<float> wide(all.size(), 1);
  convert(all.data(), wide.data(), 65536);
  for (size_t i = 0; i < all.size(); ++i) {
    const float expected = one(all[i]);
    CHECK(std::isnan(expected) ? std::isnan(wide[i])
                               : std::bit_cast<uint32_t>(wide[i]) == std::bit_cast<uint32_t>(expected));
  }
}

void check_narrowing(void (*convert)(const float*, uint16_t*, int64_t), float (*widen)(uint16_t), uint16_t infinity) {
  std::vector<float> points;
  // Every value, every midpoint between neighbours, and one step to either side of it.
  for (uint32_t bits = 0; bits + 1 < infinity; bits += quick() ? 37 : 5) {
    const float a = widen(static_cast<uint16_t>(bits));
    const float middle = a + (widen(static_cast<uint16_t>(bits + 1)) - a) / 2;
    for (const float v : {a, middle, std::nextafterf(middle, 0.0f), std::nextafterf(middle, INFINITY)}) {
      points.push_back(v);
      points.push_back(-v);
    }
  }
  for (const float v : {INFINITY, -INFINITY, 65519.996f, 65520.0f, 3.4e38f, 1e-45f, -1e-45f}) points.push_back(v);
  Guarded<float> x(points.size(), 1);
  std::copy(points.begin(), points.end(), x.data());
  Guarded<uint16_t> y(points.size(), 3);
  convert(x.data(), y.data(), static_cast<int64_t>(points.size()));
  for (size_t i = 0; i < points.size(); ++i)
    CHECK(y[i] == (std::isinf(x[i]) ? infinity | (x[i] < 0 ? 0x8000 : 0) : nearest(x[i], widen, infinity)));
  Guarded<float> nan(5);
  Guarded<uint16_t> out(5);
  convert(nan.data(), out.data(), 5);
  for (size_t i = 0; i < 5; ++i) CHECK(std::isnan(widen(out[i])));
}

void check_lengths(const ConvertKernels& kernels) {
  for (int64_t n = 0; n <= 70; ++n) {
    Guarded<float> x(static_cast<size_t>(n), 1), back(static_cast<size_t>(n), 2);
    Guarded<uint16_t> half(static_cast<size_t>(n), 3);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 256);
    kernels.f32_to_f16(x.data(), half.data(), n);
    kernels.f16_to_f32(half.data(), back.data(), n);
    CHECK(!std::memcmp(x.data(), back.data(), x.size() * sizeof(float)));
    std::fill_n(back.data(), back.size(), -1.0f);
    kernels.f32_to_bf16(x.data(), half.data(), n);
    kernels.bf16_to_f32(half.data(), back.data(), n);
    CHECK(!std::memcmp(x.data(), back.data(), x.size() * sizeof(float)));
  }
}

void check_parity(const ConvertKernels& kernels) {
  check_widening(kernels.f16_to_f32, half_to_float);
  check_widening(kernels.bf16_to_f32, bfloat16_to_float);
  check_narrowing(kernels.f32_to_f16, half_to_float, 0x7c00);
  check_narrowing(kernels.f32_to_bf16, bfloat16_to_float, 0x7f80);
  check_lengths(kernels);
}

void truncating_bf16(const float* x, uint16_t* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = static_cast<uint16_t>(std::bit_cast<uint32_t>(x[i]) >> 16);
}

}  // namespace

LUTRA_TEST(convert, every_version_rounds_to_nearest_even) {
  for (const ConvertKernels* kernels : versions<ConvertKernels>(convert_kernels)) check_parity(*kernels);
}

LUTRA_TEST(convert, the_check_sees_a_planted_fault) {
  ConvertKernels mutant = convert_scalar;
  mutant.f32_to_bf16 = truncating_bf16;
  CHECK(catches([&] { check_parity(mutant); }));
}
