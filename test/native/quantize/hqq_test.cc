#include "quantize/hqq.h"

#include <algorithm>

#include "../operands.h"
#include "core/checked.h"
#include "quantize/levels.h"

using namespace lutra;
using namespace lutra::test;

namespace {

struct Fit {
  int64_t rows, k, groups;
  HqqOptions options;
  Operand<float> w, scales, offsets, levels;
  Operand<uint8_t> codes;

  Fit(int64_t rows_, int64_t k_, const HqqOptions& options_, uint64_t seed)
      : rows(rows_),
        k(k_),
        groups(ceil_div(k, options_.group_size)),
        options(options_),
        w({rows, k}),
        scales({rows, groups}),
        offsets({rows, groups}),
        levels({rows, groups, int64_t{1} << options.bits}),
        codes({rows, k}) {
    fill(w, Distribution::kNormal, seed);
  }
  Status run(int lane_count = 2) {
    Lanes lanes(lane_count);
    LUTRA_TRY(hqq_fit(lanes.context, options, w.view, scales.view, offsets.view));
    LUTRA_TRY(levels_of(lanes.context, LevelKind::kRealOffset, scales.view, offsets.view, levels.view));
    return round_to_levels(lanes.context, options.group_size, w.view, levels.view, codes.view);
  }
  // Sum of |w - w^|^power over a group.
  double error(int64_t row, int64_t group, double power) {
    double sum = 0;
    for (int64_t j = group * options.group_size; j < std::min(k, (group + 1) * options.group_size); ++j) {
      const size_t at = static_cast<size_t>(row * k + j);
      const size_t level = static_cast<size_t>(row * groups + group) << options.bits | codes[at];
      sum += std::pow(std::fabs(double{w[at]} - double{levels[level]}), power);
    }
    return sum;
  }
};

HqqOptions options_of(int bits, int iterations) {
  HqqOptions options;
  options.bits = bits;
  options.group_size = 32;
  options.iterations = iterations;
  return options;
}

}  // namespace

LUTRA_TEST(quantize, hqq_shrinks_towards_zero_and_never_past_it) {
  for (const double norm : {0.3, 0.7, 1.0})
    for (const double beta : {0.5, 10.0, 1e6})
      for (const double x : {0.0, 1e-9, 0.01, 0.4, 3.0, 1e5}) {
        const double y = hqq_shrink(x, norm, beta);
        CHECK(y >= 0 && y <= x);
        CHECK(hqq_shrink(-x, norm, beta) == -y);
        // What is left where it does not vanish: the stationary point of |y|^p's linear bound and the split.
        if (y > 0) CHECK_LE(std::fabs(y - (x - std::pow(x, norm - 1) / beta)), 1e-15 * x);
      }
}

LUTRA_TEST(quantize, hqq_error_never_rises_over_iterations) {
  for (const int bits : {2, 3, 4})
    for (const double kappa : {1.0, 1.1}) {
      std::vector<double> before;
      double first = 0, last = 0;
      for (const int iterations : {0, 1, 2, 5, 20, 100}) {
        HqqOptions options = options_of(bits, iterations);
        options.kappa = kappa;
        Fit fit(6, 77, options, 3);
        CHECK(fit.run().ok());
        std::vector<double> now;
        for (int64_t r = 0; r < fit.rows; ++r)
          for (int64_t g = 0; g < fit.groups; ++g) now.push_back(fit.error(r, g, 1));
        for (size_t i = 0; i < before.size(); ++i) CHECK_LE(now[i], before[i] * (1 + 1e-6));
        before = now;
        last = 0;
        for (const double e : now) last += e;
        if (iterations == 0) first = last;
      }
      CHECK(last < 0.97 * first);
    }
}

LUTRA_TEST(quantize, hqq_without_iterations_spans_the_group) {
  Fit fit(5, 64, options_of(3, 0), 4);
  CHECK(fit.run().ok());
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t g = 0; g < 2; ++g) {
      const float* w = fit.w.data() + r * 64 + g * 32;
      const auto [lo, hi] = std::minmax_element(w, w + 32);
      const size_t at = static_cast<size_t>(r * 2 + g);
      CHECK(fit.offsets[at] == half_to_float(float_to_half(*lo)));
      CHECK(half_to_float(float_to_half(fit.scales[at])) == fit.scales[at]);
      CHECK(fit.scales[at] * 7 >= *hi - *lo && fit.scales[at] * 7 <= (*hi - *lo) * (1 + 0x1p-9f));
    }
}

// Where the split weighs nothing all error is shrunk away, and the offset is the mean of what the codes leave.
LUTRA_TEST(quantize, hqq_offset_is_the_mean_where_the_split_weighs_nothing) {
  HqqOptions options = options_of(2, 1);
  options.beta = 1e-9;
  options.storage = Dtype::kF32;
  Fit start(8, 32, options, 5), fit(8, 32, options, 5);
  start.options.iterations = 0;
  CHECK(start.run().ok() && fit.run().ok());
  int moved = 0;
  for (int64_t r = 0; r < 8; ++r) {
    const size_t row = static_cast<size_t>(r);
    double mean = 0;
    for (size_t j = 0; j < 32; ++j)
      mean += (double{start.w[row * 32 + j]} - double{start.scales[row]} * start.codes[row * 32 + j]) / 32;
    CHECK(fit.scales[row] == start.scales[row]);
    const bool kept = fit.offsets[row] == start.offsets[row];
    moved += !kept;
    if (!kept) CHECK_LE(std::fabs(fit.offsets[row] - mean), 1e-6);
  }
  CHECK(moved > 0);
  // And where it weighs all, nothing moves.
  fit.options.beta = 1e30;
  CHECK(fit.run().ok());
  CHECK(fit.offsets.same_bits(start.offsets));
}

LUTRA_TEST(quantize, hqq_takes_constants_and_ignores_lanes) {
  Fit fit(37, 80, options_of(3, 20), 6), one(37, 80, options_of(3, 20), 6);
  for (size_t j = 0; j < 80; ++j) fit.w[j] = one.w[j] = j < 32 ? 0.0f : -0.375f;
  CHECK(fit.run(3).ok() && one.run(1).ok());
  CHECK(fit.scales.same_bits(one.scales) && fit.offsets.same_bits(one.offsets));
  for (int64_t g = 0; g < 3; ++g) CHECK(fit.error(0, g, 1) == 0);
}

LUTRA_TEST(quantize, hqq_refuses) {
  Fit fit(3, 40, options_of(3, 5), 7);
  const auto with = [&](auto&& change) {
    const HqqOptions kept = fit.options;
    change(fit.options);
    const Code code = fit.run().code;
    fit.options = kept;
    return code;
  };
  CHECK(with([](HqqOptions&) {}) == Code::kOk);
  CHECK(with([](HqqOptions& o) { o.bits = 9; }) == Code::kOption);
  CHECK(with([](HqqOptions& o) { o.group_size = 0; }) == Code::kOption);
  CHECK(with([](HqqOptions& o) { o.group_size = 64; }) == Code::kShape);
  CHECK(with([](HqqOptions& o) { o.iterations = -1; }) == Code::kOption);
  CHECK(with([](HqqOptions& o) { o.norm = 1.5; }) == Code::kOption);
  CHECK(with([](HqqOptions& o) { o.beta = 0; }) == Code::kOption);
  CHECK(with([](HqqOptions& o) { o.kappa = NAN; }) == Code::kOption);
  CHECK(with([](HqqOptions& o) { o.storage = Dtype::kF64; }) == Code::kDtype);
  fit.w[3] = 1e6f;
  CHECK(fit.run().code == Code::kOption);
  fit.w[3] = NAN;
  const Status status = fit.run();
  CHECK(status.code == Code::kNonFinite && status.found == 3);
}
