#include "quantize/levels.h"

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr int64_t kRows = 3, kCols = 45, kGroup = 16, kGroups = 3;

}  // namespace

LUTRA_TEST(quantize, levels_are_what_the_formulas_say) {
  Lanes lanes(2);
  Operand<float> scales({kRows, kGroups}), offsets({kRows, kGroups}), alphas({kRows, kGroups, 3});
  Operand<float> levels({kRows, kGroups, 8});
  for (size_t i = 0; i < 9; ++i) {
    scales[i] = 0.0625f * static_cast<float>(1 + i % 5);
    offsets[i] = static_cast<float>(i % 8);
    for (size_t b = 0; b < 3; ++b)
      alphas[3 * i + b] = 0.1f * static_cast<float>(i + 1) + 0.03f * static_cast<float>(b * b);
  }
  const auto each = [&](LevelKind kind, const TensorView& first, auto&& expected) {
    CHECK(levels_of(lanes.context, kind, first, offsets.view, levels.view).ok());
    for (size_t i = 0; i < 9; ++i)
      for (unsigned code = 0; code < 8; ++code) CHECK(levels[8 * i + code] == static_cast<float>(expected(i, code)));
  };
  each(LevelKind::kZeroCode, scales.view,
       [&](size_t i, unsigned code) { return scales[i] * (code - double{offsets[i]}); });
  each(LevelKind::kRealOffset, scales.view,
       [&](size_t i, unsigned code) { return scales[i] * double(code) + offsets[i]; });
  const auto bits = [&](size_t i, unsigned code) {
    double sum = 0;
    for (unsigned b = 0; b < 3; ++b) sum += code >> b & 1 ? double{alphas[3 * i + b]} : 0.0;
    return sum;
  };
  each(LevelKind::kPlanes, alphas.view, [&](size_t i, unsigned code) { return bits(i, code) + double{offsets[i]}; });
  each(LevelKind::kCentredPlanes, alphas.view, [&](size_t i, unsigned code) { return bits(i, code) - bits(i, 7) / 2; });
}

LUTRA_TEST(quantize, codes_are_the_nearest_levels_and_residuals_the_distances) {
  Lanes lanes(2);
  for (const int64_t count : {2, 4, 8, 16, 256}) {
    Operand<float> w({kRows, kCols}), levels({kRows, kGroups, count}), difference({kRows, kCols});
    Operand<uint8_t> codes({kRows, kCols});
    fill(w, Distribution::kNormal, 3);
    fill(levels, Distribution::kNormal, 4);
    CHECK(round_to_levels(lanes.context, kGroup, w.view, levels.view, codes.view).ok());
    CHECK(residual(lanes.context, w.view, codes.view, levels.view, kGroup, difference.view).ok());
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const float* level = levels.data() + (i / kCols * kGroups + i % kCols / kGroup) * count;
      double least = INFINITY;
      const double value = w[static_cast<size_t>(i)];
      for (int64_t c = 0; c < count; ++c) least = std::min(least, std::fabs(value - level[c]));
      const float own = level[codes[static_cast<size_t>(i)]];
      CHECK(std::fabs(value - double{own}) == least);
      CHECK(difference[static_cast<size_t>(i)] == static_cast<float>(value) - own);
    }
  }
}

LUTRA_TEST(quantize, halfway_goes_up) {
  Lanes lanes(1);
  Operand<float> w({1, 3}), levels({1, 1, 4});
  Operand<uint8_t> codes({1, 3});
  const float values[] = {3, 0, 1, -2};
  std::copy(values, values + 4, levels.data());
  w[0] = 0.5f;
  w[1] = -1;
  w[2] = 2;
  CHECK(round_to_levels(lanes.context, 3, w.view, levels.view, codes.view).ok());
  CHECK(codes[0] == 2 && codes[1] == 1 && codes[2] == 0);
}

LUTRA_TEST(quantize, levels_refuse) {
  Lanes lanes(1);
  Context& c = lanes.context;
  Operand<float> w({kRows, kCols}), levels({kRows, kGroups, 8}), scales({kRows, kGroups}), narrow({kRows, kGroups - 1});
  Operand<uint8_t> codes({kRows, kCols}), short_codes({kRows, kCols - 1});
  fill(w, Distribution::kNormal, 3);
  fill(levels, Distribution::kNormal, 4);
  fill(scales, Distribution::kNormal, 5);
  CHECK(levels_of(c, LevelKind::kZeroCode, scales.view, narrow.view, levels.view).code == Code::kShape);
  CHECK(levels_of(c, LevelKind::kPlanes, scales.view, scales.view, levels.view).code == Code::kShape);
  CHECK(levels_of(c, LevelKind::kZeroCode, scales.view, codes.view, levels.view).code == Code::kDtype);
  CHECK(round_to_levels(c, 0, w.view, levels.view, codes.view).code == Code::kOption);
  CHECK(round_to_levels(c, 8, w.view, levels.view, codes.view).code == Code::kShape);
  CHECK(round_to_levels(c, kGroup, w.view, levels.view, short_codes.view).code == Code::kShape);
  CHECK(residual(c, w.view, w.view, levels.view, kGroup, w.view).code == Code::kDtype);
  levels[7] = INFINITY;
  CHECK(round_to_levels(c, kGroup, w.view, levels.view, codes.view).code == Code::kNonFinite);
  levels[7] = 0;
  w[1] = NAN;
  CHECK(round_to_levels(c, kGroup, w.view, levels.view, codes.view).code == Code::kNonFinite);
}
