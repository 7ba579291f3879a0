#include <algorithm>
#include <limits>

#include "../operands.h"
#include "ops/backward.h"
#include "ops/transformer.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

LUTRA_TEST(ops, cross_entropy_of_known_rows) {
  Lanes one(1), three(3);
  const int64_t n = 7, vocab = 101;
  Operand<float> logits({n, vocab});
  Operand<int32_t> target({n}), top({n}), top3({n});
  Operand<double> loss({n}), loss3({n});
  fill(logits, Distribution::kNormal, 3);
  for (int64_t t = 0; t < n; ++t) target[static_cast<size_t>(t)] = static_cast<int32_t>(t * 11);
  for (int64_t v = 0; v < vocab; ++v) logits[static_cast<size_t>(v)] = 3.5f;  // uniform: log of the vocabulary
  target[1] = -1;
  CHECK(cross_entropy(one.context, logits.view, target.view, loss.view, top.view).ok());
  CHECK(cross_entropy(three.context, logits.view, target.view, loss3.view, top3.view).ok());
  CHECK(loss.same_bits(loss3) && top.same_bits(top3));
  CHECK_LE(std::fabs(loss[0] - std::log(static_cast<double>(vocab))), 1e-14);
  CHECK(top[0] == 0);
  CHECK(loss[1] == 0.0);
  for (int64_t t = 2; t < n; ++t) {
    double sum = 0;
    const float* row = logits.data() + t * vocab;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(row[v]));
    CHECK_LE(std::fabs(loss[static_cast<size_t>(t)] - (std::log(sum) - row[t * 11])), 1e-12);
    CHECK(row[top[static_cast<size_t>(t)]] == *std::max_element(row, row + vocab));
  }
  // Far beyond what exp of fp32 holds, and shifted rows keep their loss.
  Operand<float> shifted({n, vocab});
  for (size_t i = 0; i < logits.count(); ++i) shifted[i] = logits[i] * 1024.0f;
  CHECK(cross_entropy(one.context, shifted.view, target.view, loss3.view, top3.view).ok());
  for (size_t t = 0; t < 7; ++t) CHECK(std::isfinite(loss3[t]) && loss3[t] >= 0);
}

LUTRA_TEST(ops, cross_entropy_refuses) {
  Lanes lanes(1);
  Operand<float> logits({2, 5});
  Operand<int32_t> target({2}), top({2}), long_target({3});
  Operand<double> loss({2});
  fill(logits, Distribution::kNormal, 1);
  target[0] = 0;
  target[1] = 5;
  const Status status = cross_entropy(lanes.context, logits.view, target.view, loss.view, top.view);
  CHECK(status.code == Code::kOption && status.found == 5 && status.expected == 5);
  CHECK(cross_entropy(lanes.context, logits.view, long_target.view, loss.view, top.view).code == Code::kShape);
  CHECK(cross_entropy(lanes.context, logits.view, target.view, target.view, top.view).code == Code::kDtype);
  CHECK(cross_entropy(lanes.context, logits.view, target.view, loss.view, loss.view).code == Code::kDtype);
  Operand<float> empty({2, 0});
  CHECK(cross_entropy(lanes.context, empty.view, target.view, loss.view, top.view).code == Code::kShape);
}

LUTRA_TEST(ops, cross_entropy_backward_is_the_slope_of_cross_entropy) {
  Lanes one(1), three(3);
  const int64_t n = 5, vocab = 23;
  Operand<float> logits({n, vocab}), slope({n, vocab}), slope3({n, vocab}), moved({n, vocab});
  Operand<int32_t> target({n}), top({n});
  Operand<double> above({n}), below({n});
  fill(logits, Distribution::kNormal, 8);
  for (int32_t t = 0; t < n; ++t) target[static_cast<size_t>(t)] = t == 2 ? -1 : 4 * t;
  CHECK(cross_entropy_backward(one.context, logits.view, target.view, slope.view).ok());
  CHECK(cross_entropy_backward(three.context, logits.view, target.view, slope3.view).ok());
  CHECK(slope.same_bits(slope3));
  const float step = 0x1p-7f;
  for (size_t v = 0; v < 23; ++v) {
    const auto shifted = [&](float by, Operand<double>& loss) {
      for (size_t i = 0; i < logits.count(); ++i) moved[i] = logits[i] + (i % 23 == v ? by : 0.0f);
      CHECK(cross_entropy(one.context, moved.view, target.view, loss.view, top.view).ok());
    };
    shifted(step, above);
    shifted(-step, below);
    // The third derivative of a log-sum-exp is below one.
    for (size_t t = 0; t < 5; ++t) CHECK_LE(std::fabs((above[t] - below[t]) / (2.0 * step) - slope[t * 23 + v]), 5e-5);
  }
  for (size_t t = 0; t < 5; ++t) {
    double sum = 0;
    for (size_t v = 0; v < 23; ++v) sum += slope[t * 23 + v];
    CHECK_LE(std::fabs(sum), 1e-6);
  }
  // In place, and far beyond what exp of fp32 holds.
  for (size_t i = 0; i < logits.count(); ++i) moved[i] = logits[i] * 1024.0f;
  CHECK(cross_entropy_backward(one.context, moved.view, target.view, moved.view).ok());
  for (size_t i = 0; i < moved.count(); ++i) CHECK(std::fabs(moved[i]) <= 1.0f);
  Operand<float> narrow({n, vocab - 1});
  Operand<int32_t> few({n - 1});
  CHECK(cross_entropy_backward(one.context, logits.view, target.view, narrow.view).code == Code::kShape);
  CHECK(cross_entropy_backward(one.context, logits.view, few.view, slope.view).code == Code::kShape);
  CHECK(cross_entropy_backward(one.context, logits.view, slope.view, slope.view).code != Code::kOk);
  target[0] = static_cast<int32_t>(vocab);
  CHECK(cross_entropy_backward(one.context, logits.view, target.view, slope.view).code == Code::kOption);
}

LUTRA_TEST(ops, squares_are_added_up) {
  Lanes one(1), three(3);
  Operand<float> x({70, 1100}), sum({70, 1100}), sum3({70, 1100}), tall({71, 1100});
  fill(x, Distribution::kNormal, 5);
  fill(sum, Distribution::kNormal, 6);
  std::copy(sum.data(), sum.data() + sum.count(), sum3.data());
  CHECK(accumulate_squares(one.context, x.view, sum.view).ok());
  CHECK(accumulate_squares(three.context, x.view, sum3.view).ok());
  CHECK(sum.same_bits(sum3));
  Operand<float> before({70, 1100});
  fill(before, Distribution::kNormal, 6);
  for (size_t i = 0; i < x.count(); ++i)
    CHECK_LE(std::fabs(sum[i] - (before[i] + static_cast<double>(x[i]) * x[i])), 4e-6 * (1 + x[i] * x[i]));
  CHECK(accumulate_squares(one.context, x.view, tall.view).code == Code::kShape);
  CHECK(accumulate_squares(one.context, x.view, x.view).code == Code::kOption);
}

LUTRA_TEST(ops, kl_divergence_is_a_divergence) {
  Lanes one(1), three(3);
  const int64_t n = 6, vocab = 77;
  Operand<float> p({n, vocab}), q({n, vocab}), near({n, vocab});
  Operand<double> self({n}), forward({n}), forward3({n}), close({n});
  fill(p, Distribution::kNormal, 1);
  fill(q, Distribution::kNormal, 2);
  for (size_t i = 0; i < p.count(); ++i) near[i] = p[i] + 1e-4f * q[i];
  CHECK(kl_divergence(one.context, p.view, p.view, self.view).ok());
  CHECK(kl_divergence(one.context, p.view, q.view, forward.view).ok());
  CHECK(kl_divergence(three.context, p.view, q.view, forward3.view).ok());
  CHECK(kl_divergence(one.context, p.view, near.view, close.view).ok());
  CHECK(forward.same_bits(forward3));
  for (size_t t = 0; t < 6; ++t) {
    CHECK(self[t] == 0.0);
    CHECK(forward[t] > 0);
    // Second order: half the variance of the difference.
    CHECK(close[t] > 0 && close[t] < 1e-7);
    double sum_p = 0, sum_q = 0, sum = 0;
    for (size_t v = 0; v < 77; ++v) {
      sum_p += std::exp(static_cast<double>(p[t * 77 + v]));
      sum_q += std::exp(static_cast<double>(q[t * 77 + v]));
    }
    for (size_t v = 0; v < 77; ++v) {
      const double prob = std::exp(static_cast<double>(p[t * 77 + v])) / sum_p;
      sum += prob * (std::log(prob) - std::log(std::exp(static_cast<double>(q[t * 77 + v])) / sum_q));
    }
    CHECK_LE(std::fabs(sum - forward[t]), 1e-12);
  }
  // A token the reference excludes adds nothing; one that only the model excludes adds everything.
  p[0] = -static_cast<float>(kInfinity);
  CHECK(kl_divergence(one.context, p.view, q.view, forward.view).ok());
  CHECK(std::isfinite(forward[0]));
  q[1] = -static_cast<float>(kInfinity);
  CHECK(kl_divergence(one.context, p.view, q.view, forward.view).ok());
  CHECK(forward[0] == kInfinity);
  Operand<float> narrow({n, vocab - 1});
  CHECK(kl_divergence(one.context, p.view, narrow.view, forward.view).code == Code::kShape);
  CHECK(kl_divergence(one.context, p.view, q.view, p.view).code == Code::kShape);
}

LUTRA_TEST(ops, convert_rounds_once) {
  Lanes lanes(2);
  // 1 + 2^-11 + 2^-40 lies just above the tie between two f16: through f32 it would become the tie itself.
  Operand<double> x({6});
  const double values[6] = {1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-11, -(1 + 0x1p-11 + 0x1p-40), 65519.9999999, 1e300, -0.0};
  std::copy(values, values + 6, x.data());
  Operand<uint16_t> half({6}), brain({6}, Dtype::kBF16);
  CHECK(convert(lanes.context, x.view, half.view).ok());
  CHECK(half[0] == 0x3c01 && half[1] == 0x3c00 && half[2] == 0xbc01);
  CHECK(half[3] == 0x7bff && half[4] == 0x7c00 && half[5] == 0x8000);
  x[0] = 1 + 0x1p-8 + 0x1p-45;
  x[1] = 1 + 0x1p-8;
  CHECK(convert(lanes.context, x.view, brain.view).ok());
  CHECK(brain[0] == 0x3f81 && brain[1] == 0x3f80);
}

LUTRA_TEST(ops, convert_round_trips_between_all_types) {
  Lanes one(1), three(3);
  const int64_t n = quick() ? 1000 : 140001;
  Operand<uint16_t> f16({n}), f16_again({n}), bf16({n}, Dtype::kBF16), bf16_again({n}, Dtype::kBF16);
  Operand<float> f32({n}), f32_again({n});
  Operand<double> f64({n});
  fill(f16, Distribution::kNormal, 4);
  fill(bf16, Distribution::kNormal, 5);
  CHECK(convert(one.context, f16.view, f32.view).ok());
  CHECK(convert(three.context, f32.view, f64.view).ok());
  CHECK(convert(three.context, f64.view, f16_again.view).ok());
  CHECK(f16.same_bits(f16_again));
  CHECK(convert(one.context, bf16.view, f64.view).ok());
  CHECK(convert(one.context, f64.view, f32_again.view).ok());
  CHECK(convert(three.context, f32_again.view, bf16_again.view).ok());
  CHECK(bf16.same_bits(bf16_again));
  CHECK(convert(one.context, f16.view, f16_again.view).ok());
  Operand<int32_t> ints({n});
  Operand<float> shorter({n - 1});
  CHECK(convert(one.context, ints.view, f32.view).code == Code::kDtype);
  CHECK(convert(one.context, f32.view, ints.view).code == Code::kDtype);
  CHECK(convert(one.context, f32.view, shorter.view).code == Code::kShape);
}

LUTRA_TEST(ops, find_non_finite_finds_the_first) {
  Lanes one(1), three(3);
  const int64_t n = 200003;
  Operand<float> x({n});
  fill(x, Distribution::kNormal, 1);
  for (Lanes* lanes : {&one, &three}) {
    int64_t at = 5;
    CHECK(find_non_finite(lanes->context, x.view, &at).ok());
    CHECK(at == -1);
    x[199999] = NAN;
    CHECK(find_non_finite(lanes->context, x.view, &at).ok());
    CHECK(at == 199999);
    x[70000] = -INFINITY;
    CHECK(find_non_finite(lanes->context, x.view, &at).ok());
    CHECK(at == 70000);
    x[199999] = x[70000] = 0;
  }
  Operand<uint16_t> half({3}), brain({3}, Dtype::kBF16);
  Operand<double> wide({3});
  int64_t at = 0;
  half[0] = 0x7bff;
  half[1] = 0x7c00;
  half[2] = 0;
  CHECK(find_non_finite(one.context, half.view, &at).ok());
  CHECK(at == 1);
  brain[0] = 0x7f7f;
  brain[1] = 0;
  brain[2] = 0xff80;
  CHECK(find_non_finite(one.context, brain.view, &at).ok());
  CHECK(at == 2);
  wide[0] = 1e308;
  wide[1] = -1e-308;
  wide[2] = 0;
  CHECK(find_non_finite(one.context, wide.view, &at).ok());
  CHECK(at == -1);
  Operand<int32_t> ints({3});
  CHECK(find_non_finite(one.context, ints.view, &at).code == Code::kDtype);
}
