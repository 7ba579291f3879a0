#include "quantize/adam.h"

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

// The first step has m / whole1 = g and v / whole2 = g^2: every parameter moves by the learning rate against its sign.
LUTRA_TEST(quantize, adam_first_step_is_the_learning_rate) {
  Lanes lanes(2);
  Operand<float> p({3, 5}), before({3, 5}), g({3, 5}), moments({2, 15});
  fill(p, Distribution::kNormal, 1);
  fill(g, Distribution::kNormal, 2);
  std::copy(p.data(), p.data() + p.count(), before.data());
  std::fill_n(moments.data(), moments.count(), 0.0f);
  const AdamOptions options{0.01, 0.9, 0.99, 1e-12, 0.0};
  CHECK(adam_step(lanes.context, options, 1, g.view, p.view, moments.view).ok());
  for (size_t i = 0; i < p.count(); ++i) CHECK_LE(std::fabs(before[i] - p[i] - (g[i] > 0 ? 0.01 : -0.01)), 1e-6);
}

// Every step from the definition, with sums instead of running means, decay included, for any number of lanes.
LUTRA_TEST(quantize, adam_agrees_with_its_definition) {
  const int64_t n = 40000, steps = 5;
  const AdamOptions options{0.02, 0.8, 0.95, 1e-3, 0.1};
  Lanes one(1), three(3);
  Operand<float> p({n}), p3({n}), moments({2, n}), moments3({2, n});
  fill(p, Distribution::kNormal, 1);
  std::copy(p.data(), p.data() + n, p3.data());
  std::fill_n(moments.data(), moments.count(), 0.0f);
  std::fill_n(moments3.data(), moments3.count(), 0.0f);
  std::vector<std::vector<double>> slopes;
  std::vector<double> expected(p.data(), p.data() + n);
  for (int64_t step = 1; step <= steps; ++step) {
    Operand<float> g({n});
    fill(g, Distribution::kNormal, static_cast<uint64_t>(10 + step));
    slopes.emplace_back(static_cast<size_t>(n));
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      slopes.back()[i] = g[i] + options.weight_decay * expected[i];
      double m = 0, v = 0, weight1 = 0, weight2 = 0;
      for (int64_t s = 0; s < step; ++s) {
        const double past = slopes[static_cast<size_t>(s)][i], age = static_cast<double>(step - 1 - s);
        m += std::pow(options.beta1, age) * past;
        v += std::pow(options.beta2, age) * past * past;
        weight1 += std::pow(options.beta1, age);
        weight2 += std::pow(options.beta2, age);
      }
      expected[i] -= options.learning_rate * (m / weight1) / (std::sqrt(v / weight2) + options.epsilon);
    }
    CHECK(adam_step(one.context, options, step, g.view, p.view, moments.view).ok());
    CHECK(adam_step(three.context, options, step, g.view, p3.view, moments3.view).ok());
  }
  CHECK(p.same_bits(p3) && moments.same_bits(moments3));
  CHECK_LE(nmse(p.data(), expected.data(), expected.size()), 1e-10);
}

LUTRA_TEST(quantize, adam_refuses) {
  Lanes lanes(1);
  Operand<float> p({4}), g({4}), moments({2, 4}), narrow({2, 3}), other({5});
  for (Operand<float>* operand : {&p, &g, &moments}) std::fill_n(operand->data(), operand->count(), 0.0f);
  const auto run = [&](const AdamOptions& options, int64_t step) {
    return adam_step(lanes.context, options, step, g.view, p.view, moments.view).code;
  };
  CHECK(run({}, 1) == Code::kOk);
  CHECK(run({}, 0) == Code::kOption);
  CHECK(run({-1, 0.9, 0.9, 1, 0}, 1) == Code::kOption);
  CHECK(run({1, 1.0, 0.9, 1, 0}, 1) == Code::kOption);
  CHECK(run({1, 0.9, 0.9, 0, 0}, 1) == Code::kOption);
  CHECK(adam_step(lanes.context, {}, 1, other.view, p.view, moments.view).code == Code::kShape);
  CHECK(adam_step(lanes.context, {}, 1, g.view, p.view, narrow.view).code == Code::kShape);
  CHECK(adam_step(lanes.context, {}, 1, p.view, p.view, moments.view).code == Code::kOption);
}
