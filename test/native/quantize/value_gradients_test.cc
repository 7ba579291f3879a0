#include "quantize/value_gradients.h"

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// A matrix of codes with values, and a loss that is linear in the weights: sum dw w.
struct ValueCase {
  LevelKind kind;
  int bits;
  int64_t m, k, group_size;
  int64_t groups = (k + group_size - 1) / group_size;
  bool planes = kind == LevelKind::kPlanes || kind == LevelKind::kCentredPlanes;
  bool offsets = kind == LevelKind::kPlanes || kind == LevelKind::kRealOffset;
  Operand<float> scales, second, dw, w, dscales, doffsets;
  Operand<float> levels{m, groups, int64_t{1} << bits};
  Operand<uint8_t> codes{m, k};
  Lanes lanes{2};

  ValueCase(LevelKind kind_, int bits_, int64_t m_, int64_t k_, int64_t group)
      : kind(kind_),
        bits(bits_),
        m(m_),
        k(k_),
        group_size(group),
        scales(planes ? std::initializer_list<int64_t>{m, groups, bits} : std::initializer_list<int64_t>{m, groups}),
        second({m, groups}),
        dw({m, k}),
        w({m, k}),
        dscales(planes ? std::initializer_list<int64_t>{m, groups, bits} : std::initializer_list<int64_t>{m, groups}),
        doffsets({m, groups}) {
    fill(scales, Distribution::kNormal, 1);
    fill(second, Distribution::kNormal, 2);
    fill(dw, Distribution::kNormal, 3);
    std::mt19937_64 random(4);
    for (size_t i = 0; i < codes.count(); ++i) codes[i] = static_cast<uint8_t>(random() % (uint64_t{1} << bits));
    if (kind == LevelKind::kZeroCode)
      for (size_t i = 0; i < second.count(); ++i) second[i] = static_cast<float>(random() % (uint64_t{1} << bits));
  }

  double loss() {
    CHECK(levels_of(lanes.context, kind, scales.view, second.view, levels.view).ok());
    CHECK(level_weights(lanes.context, group_size, codes.view, levels.view, false, w.view).ok());
    double sum = 0;
    for (size_t i = 0; i < w.count(); ++i) sum += static_cast<double>(dw[i]) * w[i];
    return sum;
  }
  Status gradients(Context& context) {
    const TensorView& last = kind == LevelKind::kZeroCode ? second.view : doffsets.view;
    return value_gradients(context, kind, bits, group_size, dw.view, codes.view, last, dscales.view, doffsets.view);
  }
};

// Weights are linear in the values: a step of one changes the loss by the derivative, but for rounding.
void check_parameter(ValueCase& c, Operand<float>& parameter, Operand<float>& gradient) {
  const double before = c.loss();
  for (size_t i = 0; i < parameter.count(); ++i) {
    const float kept = parameter[i];
    parameter[i] = kept + 1.0f;
    CHECK_LE(std::fabs(c.loss() - before - gradient[i]), 1e-4);
    parameter[i] = kept;
  }
}

constexpr LevelKind kKinds[] = {LevelKind::kZeroCode, LevelKind::kRealOffset, LevelKind::kPlanes,
                                LevelKind::kCentredPlanes};

}  // namespace

LUTRA_TEST(quantize, value_gradients_are_those_of_the_weights) {
  for (const LevelKind kind : kKinds)
    for (const auto& [bits, m, k, group] : {std::tuple{2, 3, 40, 16}, {4, 2, 5, 8}, {1, 1, 1, 1}, {3, 18, 33, 33}}) {
      ValueCase c(kind, bits, m, k, group);
      CHECK(c.gradients(c.lanes.context).ok());
      check_parameter(c, c.scales, c.dscales);
      if (c.offsets) check_parameter(c, c.second, c.doffsets);
    }
}

// The offset's derivative without the matrix dw = dy^T x: dy times the sums of x over a group, token by token.
LUTRA_TEST(quantize, offset_gradients_are_group_sums_of_the_inputs) {
  const int64_t n = 11, m = 6, k = 40, group = 16, groups = 3;
  ValueCase c(LevelKind::kRealOffset, 3, m, k, group);
  std::vector<double> expected(static_cast<size_t>(m * groups));
  std::vector<float> x(static_cast<size_t>(n * k)), dy(static_cast<size_t>(n * m));
  fill(x.data(), x.size(), Distribution::kNormal, 5);
  fill(dy.data(), dy.size(), Distribution::kNormal, 6);
  std::vector<double> dw(static_cast<size_t>(m * k));
  for (int64_t t = 0; t < n; ++t)
    for (int64_t j = 0; j < k; ++j)
      for (int64_t r = 0; r < m; ++r) {
        const double product =
            static_cast<double>(dy[static_cast<size_t>(t * m + r)]) * x[static_cast<size_t>(t * k + j)];
        dw[static_cast<size_t>(r * k + j)] += product;
        expected[static_cast<size_t>(r * groups + j / group)] += product;
      }
  for (size_t i = 0; i < dw.size(); ++i) c.dw[i] = static_cast<float>(dw[i]);
  CHECK(c.gradients(c.lanes.context).ok());
  CHECK_LE(nmse(c.doffsets.data(), expected.data(), expected.size()), 1e-12);
}

LUTRA_TEST(quantize, value_gradients_do_not_depend_on_lanes) {
  for (const LevelKind kind : kKinds) {
    ValueCase c(kind, 3, 50, 70, 32);
    Lanes three(3);
    CHECK(c.gradients(c.lanes.context).ok());
    const std::vector<float> scales(c.dscales.data(), c.dscales.data() + c.dscales.count());
    CHECK(c.gradients(three.context).ok());
    CHECK(std::equal(scales.begin(), scales.end(), c.dscales.data()));
  }
}

LUTRA_TEST(quantize, level_weights_add_to_what_is_there) {
  ValueCase c(LevelKind::kRealOffset, 2, 5, 40, 16);
  c.loss();
  const std::vector<float> once(c.w.data(), c.w.data() + c.w.count());
  CHECK(level_weights(c.lanes.context, 16, c.codes.view, c.levels.view, true, c.w.view).ok());
  for (size_t i = 0; i < once.size(); ++i) CHECK(c.w[i] == once[i] + once[i]);
  CHECK(level_weights(c.lanes.context, 16, c.codes.view, c.levels.view, false, c.dw.view).ok());
  CHECK(std::equal(once.begin(), once.end(), c.dw.data()));
}

LUTRA_TEST(quantize, value_gradients_refuse) {
  ValueCase c(LevelKind::kRealOffset, 2, 4, 40, 16);
  Context& context = c.lanes.context;
  const auto run = [&](LevelKind kind, int bits, int64_t group, const TensorView& dscales) {
    return value_gradients(context, kind, bits, group, c.dw.view, c.codes.view, c.second.view, dscales, c.doffsets.view)
        .code;
  };
  CHECK(run(LevelKind::kRealOffset, 2, 16, c.dscales.view) == Code::kOk);
  CHECK(run(static_cast<LevelKind>(9), 2, 16, c.dscales.view) == Code::kOption);
  CHECK(run(LevelKind::kRealOffset, 0, 16, c.dscales.view) == Code::kOption);
  CHECK(run(LevelKind::kRealOffset, 2, 0, c.dscales.view) == Code::kOption);
  CHECK(run(LevelKind::kRealOffset, 2, 8, c.dscales.view) == Code::kShape);
  CHECK(run(LevelKind::kPlanes, 2, 16, c.dscales.view) == Code::kShape);
  CHECK(level_weights(context, 8, c.codes.view, c.levels.view, false, c.w.view).code == Code::kShape);
  CHECK(level_weights(context, 16, c.w.view, c.levels.view, false, c.w.view).code == Code::kDtype);
}
