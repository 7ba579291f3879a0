#include "quantize/awq.h"

#include <algorithm>

#include "problem.h"

using namespace lutra;
using namespace lutra::test;

namespace {

GridOptions options_of(int bits, int64_t group_size, bool symmetric) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  options.symmetric = symmetric;
  return options;
}

template <typename Body>
void each_grid(Body&& body) {
  for (const int bits : {2, 3, 4})
    for (const bool symmetric : {false, true})
      for (const int64_t group_size : {int64_t{16}, int64_t{32}, int64_t{-1}})
        body(options_of(bits, group_size, symmetric));
}

// What round to nearest with the problem's own grids makes of its weights.
void rounded(Problem& p, Operand<float>& y) {
  Operand<uint8_t> codes({p.rows, p.k});
  CHECK(p.round(codes).ok());
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t j = 0; j < p.k; ++j) {
      const size_t i = static_cast<size_t>(r * p.k + j);
      y[i] = static_cast<float>(p.value(r, j, codes[i]));
    }
}

// d H d^T of one group's columns, d = y - w.
double block_error(Problem& p, Operand<float>& y, int64_t r, int64_t g) {
  const int64_t length = p.options.group_size == -1 ? p.k : p.options.group_size;
  const int64_t begin = g * length, end = std::min(p.k, begin + length);
  const auto change = [&](int64_t j) {
    const size_t i = static_cast<size_t>(r * p.k + j);
    return static_cast<double>(y[i]) - static_cast<double>(p.w[i]);
  };
  double sum = 0.0;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = begin; j < end; ++j) sum += change(i) * p.h(i, j) * change(j);
  return sum;
}

}  // namespace

LUTRA_TEST(quantize, awq_without_scales_is_round_to_nearest) {
  each_grid([](const GridOptions& options) {
    Problem p(5, 40, options, 41);
    Operand<double> ones({40});
    for (size_t j = 0; j < 40; ++j) ones[j] = 1.0;
    Operand<float> y({5, 40}), expected({5, 40});
    CHECK(round_scaled(p.lanes.context, options, p.w.view, ones.view, y.view).ok());
    rounded(p, expected);
    CHECK(y.same_bits(expected));
  });
}

// Powers of two common to a group move its scale and nothing else; rounding scaled weights is rounding them scaled.
LUTRA_TEST(quantize, awq_scales_are_taken_out_again) {
  each_grid([](const GridOptions& options) {
    Problem p(5, 40, options, 42), scaled(5, 40, options, 42);
    Operand<double> s({40});
    std::mt19937_64 random(7);
    for (size_t j = 0; j < 40; ++j) s[j] = std::exp2(static_cast<double>(random() % 5) - 2.0);
    for (size_t i = 0; i < 200; ++i) scaled.w[i] = static_cast<float>(p.w[i] * s[i % 40]);
    scaled.fit();
    Operand<float> y({5, 40}), expected({5, 40}), one({5, 40});
    CHECK(round_scaled(p.lanes.context, options, p.w.view, s.view, y.view).ok());
    rounded(scaled, expected);
    for (size_t i = 0; i < 200; ++i) CHECK(y[i] == static_cast<float>(expected[i] / s[i % 40]));
    for (size_t j = 0; j < 40; ++j) s[j] *= 4;
    Lanes single(1);
    CHECK(round_scaled(single.context, options, p.w.view, s.view, one.view).ok());
    CHECK(y.same_bits(one));
  });
}

LUTRA_TEST(quantize, awq_clipping_is_never_worse_and_takes_the_best_of_its_steps) {
  each_grid([](const GridOptions& options) {
    Problem p(6, 40, options, 43);
    for (size_t i = 0; i < 240; i += 17) p.w[i] *= 3.0f;
    p.fit();
    Operand<float> plain({6, 40}), clipped({6, 40}), y({6, 40}), again({6, 40});
    rounded(p, plain);
    int64_t count = -1;
    CHECK(clip_to_hessian(p.lanes.context, options, p.w.view, p.hessian.view, clipped.view, &count).ok());
    Lanes many(5);
    int64_t same_count = -2;
    CHECK(clip_to_hessian(many.context, options, p.w.view, p.hessian.view, again.view, &same_count).ok());
    CHECK(again.same_bits(clipped) && count == same_count);
    std::vector<double> least;
    const int64_t length = options.group_size == -1 ? 40 : options.group_size;
    for (int step = 0; step < 10; ++step) {
      Problem trial(6, 40, options, 43);
      for (int64_t r = 0; r < 6; ++r)
        for (int64_t g = 0; g < p.groups; ++g) {
          float most = 0;
          const int64_t begin = g * length, end = std::min<int64_t>(40, begin + length);
          for (int64_t j = begin; j < end; ++j) most = std::max(most, std::fabs(p.w[static_cast<size_t>(r * 40 + j)]));
          const float limit = static_cast<float>((1 - 0.05 * step) * static_cast<double>(most));
          for (int64_t j = begin; j < end; ++j) {
            const size_t i = static_cast<size_t>(r * 40 + j);
            trial.w[i] = std::clamp(p.w[i], -limit, limit);
          }
        }
      trial.fit();
      rounded(trial, y);
      for (int64_t r = 0; r < 6; ++r)
        for (int64_t g = 0; g < p.groups; ++g) {
          const double found = block_error(p, y, r, g);
          const size_t at = static_cast<size_t>(r * p.groups + g);
          if (step == 0) least.push_back(found);
          least[at] = std::min(least[at], found);
        }
    }
    Problem after(6, 40, options, 43);
    std::copy(clipped.data(), clipped.data() + 240, after.w.data());
    after.fit();
    rounded(after, y);
    int64_t changed = 0;
    for (int64_t r = 0; r < 6; ++r)
      for (int64_t g = 0; g < p.groups; ++g) {
        const double found = block_error(p, y, r, g);
        CHECK_LE(found, block_error(p, plain, r, g) * (1 + 1e-4));
        CHECK_LE(found, least[static_cast<size_t>(r * p.groups + g)] * (1 + 1e-4));
        const int64_t begin = r * 40 + g * length, end = r * 40 + std::min<int64_t>(40, (g + 1) * length);
        changed += !std::equal(p.w.data() + begin, p.w.data() + end, clipped.data() + begin);
      }
    CHECK(changed == count && count > 0);
  });
}

LUTRA_TEST(quantize, awq_measures_inputs) {
  Lanes lanes(3);
  Operand<float> x({70, 19});
  fill(x, Distribution::kOutlier, 44);
  Operand<double> mean({19});
  CHECK(mean_magnitudes(lanes.context, x.view, mean.view).ok());
  for (size_t j = 0; j < 19; ++j) {
    double sum = 0.0;
    for (size_t t = 0; t < 70; ++t) sum += std::fabs(static_cast<double>(x[t * 19 + j]));
    CHECK(mean[j] == sum / 70);
  }
}

LUTRA_TEST(quantize, awq_refuses) {
  Problem p(3, 20, options_of(4, 16, false), 45);
  Context& context = p.lanes.context;
  Operand<double> s({20}), short_s({19});
  for (size_t j = 0; j < 20; ++j) s[j] = 1.0;
  Operand<float> y({3, 20}), narrow({3, 19});
  int64_t count = 0;
  const auto scaled = [&](const Operand<double>& by, const Operand<float>& to) {
    return round_scaled(context, p.options, p.w.view, by.view, to.view).code;
  };
  CHECK(scaled(s, y) == Code::kOk);
  CHECK(scaled(short_s, y) == Code::kShape);
  CHECK(scaled(s, narrow) == Code::kShape);
  for (const double bad : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    s[3] = bad;
    CHECK(scaled(s, y) == Code::kNonFinite);
  }
  s[3] = 1e9;
  CHECK(scaled(s, y) == Code::kOption);
  s[3] = 1.0;
  CHECK(clip_to_hessian(context, p.options, p.w.view, s.view, y.view, &count).code == Code::kShape);
  p.hessian[5] = NAN;
  CHECK(clip_to_hessian(context, p.options, p.w.view, p.hessian.view, y.view, &count).code == Code::kNonFinite);
  p.hessian[5] = 0.0;
  Operand<float> none({0, 20});
  CHECK(mean_magnitudes(context, none.view, s.view).code == Code::kShape);
  p.options.bits = 0;
  CHECK(scaled(s, y) == Code::kOption);
  p.options.bits = 4;
  p.w[7] = NAN;
  CHECK(scaled(s, y) == Code::kNonFinite);
  p.w[7] = 1.0f;
  CancelToken token;
  token.cancel();
  context.cancel = &token;
  CHECK(scaled(s, y) == Code::kCancelled);
}

LUTRA_TEST(quantize, awq_of_empty_matrices) {
  Lanes lanes(2);
  const GridOptions options = options_of(3, 16, false);
  for (const auto& [m, k] : {std::pair<int64_t, int64_t>{0, 20}, {3, 0}, {0, 0}}) {
    Operand<float> w({m, k}), y({m, k});
    Operand<double> s({k}), hessian({k, k});
    for (int64_t i = 0; i < k; ++i) s[static_cast<size_t>(i)] = 1.0;
    for (int64_t i = 0; i < k * k; ++i) hessian[static_cast<size_t>(i)] = 0.0;
    CHECK(round_scaled(lanes.context, options, w.view, s.view, y.view).ok());
    int64_t count = -1;
    CHECK(clip_to_hessian(lanes.context, options, w.view, hessian.view, y.view, &count).ok() && count == 0);
  }
}
