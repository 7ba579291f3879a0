#include "quantize/bcq.h"

#include "core/checked.h"
#include "problem.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// A matrix with what bcq_fit makes of it.
struct Planes {
  int64_t rows, k, groups;
  BcqOptions options;
  Operand<float> w;
  Operand<double> importance;
  Operand<float> alphas, offsets, levels;
  Operand<uint8_t> codes;

  Planes(int64_t rows_, int64_t k_, const BcqOptions& options_, uint64_t seed)
      : rows(rows_),
        k(k_),
        groups(ceil_div(k, options_.group_size)),
        options(options_),
        w({rows, k}),
        importance({k}),
        alphas({rows, groups, options.bits}),
        offsets({rows, groups}),
        levels({rows, groups, int64_t{1} << options.bits}),
        codes({rows, k}) {
    fill(w, Distribution::kNormal, seed);
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> uniform(0.1, 3);
    for (int64_t j = 0; j < k; ++j) importance[static_cast<size_t>(j)] = uniform(random);
  }

  Status fit(int lane_count = 2) {
    Lanes lanes(lane_count);
    LUTRA_TRY(bcq_fit(lanes.context, options, w.view, importance.view, alphas.view, offsets.view));
    LUTRA_TRY(level());
    return round_to_levels(lanes.context, options.group_size, w.view, levels.view, codes.view);
  }
  Status level() {
    Lanes lanes(1);
    const LevelKind kind = options.centred ? LevelKind::kCentredPlanes : LevelKind::kPlanes;
    return levels_of(lanes.context, kind, alphas.view, offsets.view, levels.view);
  }
  size_t at(int64_t row, int64_t j) const { return static_cast<size_t>(row * groups + j / options.group_size); }
  double error(int64_t row, int64_t group) {
    double sum = 0;
    for (int64_t j = group * options.group_size; j < std::min(k, (group + 1) * options.group_size); ++j) {
      const float level = levels[at(row, j) << options.bits | codes[static_cast<size_t>(row * k + j)]];
      const double d = double{w[static_cast<size_t>(row * k + j)]} - double{level};
      sum += importance[static_cast<size_t>(j)] * d * d;
    }
    return sum;
  }
};

BcqOptions options_of(int bits, int64_t group_size, bool centred, int rounds, BcqStart start = BcqStart::kGreedy) {
  return {bits, group_size, centred, rounds, start, Dtype::kF16};
}

}  // namespace

LUTRA_TEST(quantize, bcq_error_never_rises_over_rounds) {
  for (const int bits : {1, 2, 3, 4})
    for (const bool centred : {false, true})
      for (const BcqStart start : {BcqStart::kGreedy, BcqStart::kGrid, BcqStart::kBest})
        for (const Dtype storage :
             {Dtype::kF16, Dtype::kBF16}) {  // bf16 rounds so coarsely that a round may lose by it
          std::vector<double> before;
          for (const int rounds : {0, 1, 2, 3, 5, 15, 60}) {
            BcqOptions options = options_of(bits, 32, centred, rounds, start);
            options.storage = storage;
            Planes p(9, 77, options, static_cast<uint64_t>(bits));
            CHECK(p.fit().ok());
            std::vector<double> now;
            for (int64_t r = 0; r < p.rows; ++r)
              for (int64_t g = 0; g < p.groups; ++g) now.push_back(p.error(r, g));
            for (size_t i = 0; i < before.size(); ++i) CHECK_LE(now[i], before[i] * (1 + 1e-12));
            before = now;
          }
        }
}

// Where least squares and nearest codes agree, no step is left: the fit is its own least-squares solution up to
// storage.
LUTRA_TEST(quantize, bcq_ends_where_least_squares_has_nothing_to_add) {
  BcqOptions options = options_of(2, 64, false, 200);
  options.storage = Dtype::kF32;
  Planes p(5, 128, options, 3);
  CHECK(p.fit().ok());
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t g = 0; g < p.groups; ++g) {
      double sums[3] = {}, scale = 0;
      for (int64_t j = g * 64; j < (g + 1) * 64; ++j) {
        const uint8_t code = p.codes[static_cast<size_t>(r * p.k + j)];
        const double d = double{p.w[static_cast<size_t>(r * p.k + j)]} - double{p.levels[p.at(r, j) << 2 | code]};
        const double weighted = p.importance[static_cast<size_t>(j)] * d;
        scale += std::fabs(weighted);
        sums[0] += code & 1 ? weighted : 0;
        sums[1] += code & 2 ? weighted : 0;
        sums[2] += weighted;
      }
      for (const double sum : sums) CHECK_LE(std::fabs(sum), 1e-5 * scale);
    }
}

LUTRA_TEST(quantize, bcq_of_one_plane_is_the_mean_magnitude_and_the_signs) {
  Planes p(6, 64, options_of(1, 32, true, 15), 4);
  for (size_t j = 0; j < 64; ++j) p.importance[j] = 2;
  CHECK(p.fit().ok());
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t g = 0; g < p.groups; ++g) {
      double mean = 0;
      for (int64_t j = g * 32; j < (g + 1) * 32; ++j) {
        mean += std::fabs(p.w[static_cast<size_t>(r * 64 + j)]) / 32;
        CHECK(p.codes[static_cast<size_t>(r * 64 + j)] == (p.w[static_cast<size_t>(r * 64 + j)] >= 0));
      }
      const double half = p.alphas[static_cast<size_t>(r * p.groups + g)] / 2;
      CHECK_LE(std::fabs(half - mean), mean * 0x1p-11);
    }
}

LUTRA_TEST(quantize, bcq_hits_values_that_are_on_a_uniform_grid) {
  for (const int bits : {1, 2, 3, 4}) {
    Planes p(3, 96, options_of(bits, 32, false, 15, BcqStart::kBest), 5);
    std::mt19937_64 random(5);
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t j = 0; j < 96; ++j) {
        // Both ends of the grid are there.
        const uint64_t code = j % 32 == 0 ? 0 : j % 32 == 1 ? (1u << bits) - 1 : random() % (1u << bits);
        p.w[static_cast<size_t>(r * 96 + j)] = 0.0625f * static_cast<float>(1 + r) * (static_cast<float>(code) - 1.5f);
      }
    CHECK(p.fit().ok());
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t g = 0; g < 3; ++g) CHECK(p.error(r, g) == 0);
  }
}

LUTRA_TEST(quantize, bcq_stores_what_it_says_and_ignores_lanes_and_units) {
  for (const Dtype storage : {Dtype::kF16, Dtype::kBF16}) {
    BcqOptions options = options_of(3, 32, false, 15, BcqStart::kBest);
    options.storage = storage;
    Planes p(37, 80, options, 6), one(37, 80, options, 6), scaled(37, 80, options, 6);
    for (size_t j = 0; j < 80; ++j) scaled.importance[j] *= 1024;
    CHECK(p.fit().ok() && one.fit(1).ok() && scaled.fit(3).ok());
    CHECK(p.alphas.same_bits(one.alphas) && p.offsets.same_bits(one.offsets) && p.codes.same_bits(one.codes));
    CHECK(p.alphas.same_bits(scaled.alphas) && p.offsets.same_bits(scaled.offsets));
    const auto stored = [&](float v) {
      return storage == Dtype::kF16 ? half_to_float(float_to_half(v)) : bfloat16_to_float(float_to_bfloat16(v));
    };
    for (size_t i = 0; i < p.offsets.count(); ++i) {
      CHECK(stored(p.offsets[i]) == p.offsets[i]);
      for (size_t b = 0; b < 3; ++b)
        CHECK(stored(p.alphas[3 * i + b]) == p.alphas[3 * i + b] && p.alphas[3 * i + b] >= 0);
      CHECK(p.alphas[3 * i] <= p.alphas[3 * i + 1] && p.alphas[3 * i + 1] <= p.alphas[3 * i + 2]);
    }
  }
}

LUTRA_TEST(quantize, bcq_takes_groups_that_tell_planes_little) {
  Planes p(4, 32, options_of(4, 16, false, 15, BcqStart::kBest), 7);
  for (size_t j = 0; j < 32; ++j) {
    p.w[j] = 0;
    p.w[32 + j] = -0.3f;
    p.w[64 + j] = j % 2 ? 1.0f : 0.25f;
    p.w[96 + j] = j ? 1e-3f : 60.0f;
  }
  for (size_t j = 0; j < 16; ++j) p.importance[j] = 0;
  CHECK(p.fit().ok());
  for (size_t j = 0; j < 32; ++j) CHECK(p.levels[p.at(0, static_cast<int64_t>(j)) << 4 | p.codes[j]] == 0.0f);
  for (int64_t r = 1; r < 3; ++r)
    for (int64_t g = 0; g < 2; ++g) CHECK_LE(p.error(r, g), 1e-6);
  for (size_t i = 0; i < p.alphas.count(); ++i) CHECK(std::isfinite(p.alphas[i]));
}

namespace {

// Error of a refit in the metric of the damped Hessian.
double metric(Planes& p, Problem& metric_of) {
  double sum = 0;
  std::vector<double> d(static_cast<size_t>(p.k));
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t j = 0; j < p.k; ++j)
      d[static_cast<size_t>(j)] =
          double{p.levels[p.at(r, j) << p.options.bits | p.codes[static_cast<size_t>(r * p.k + j)]]} -
          double{p.w[static_cast<size_t>(r * p.k + j)]};
    for (int64_t i = 0; i < p.k; ++i)
      for (int64_t j = 0; j < p.k; ++j)
        sum += d[static_cast<size_t>(i)] * metric_of.h(i, j) * d[static_cast<size_t>(j)];
  }
  return sum;
}

}  // namespace

LUTRA_TEST(quantize, bcq_refit_lowers_the_error_until_it_is_least) {
  for (const bool centred : {false, true})
    for (const int64_t group_size : {16, 64, 90}) {
      BcqOptions options = options_of(2, group_size, centred, 15);
      options.storage = Dtype::kF32;
      Planes p(9, 90, options, 8);
      Problem q(1, 90, GridOptions{4, -1, false, false, Dtype::kF16}, 8);
      CHECK(p.fit().ok());
      double before = metric(p, q);
      const double first = before;
      Lanes lanes(2);
      const BcqRefit refit{group_size, centred, 0.0, Dtype::kF32};
      for (int sweep = 0; sweep < 60; ++sweep) {
        CHECK(bcq_refit(lanes.context, refit, p.w.view, q.hessian.view, p.codes.view, p.alphas.view, p.offsets.view)
                  .ok());
        CHECK(p.level().ok());
        const double now = metric(p, q);
        CHECK_LE(now, before * (1 + 1e-6));
        before = now;
      }
      CHECK(before < 0.95 * first);
      // What is left is orthogonal, in the Hessian's metric, to every plane of every group.
      for (int64_t r = 0; r < p.rows; ++r)
        for (int64_t g = 0; g < p.groups; ++g) {
          double sums[3] = {}, weight = 0;
          for (int64_t i = g * group_size; i < std::min(p.k, (g + 1) * group_size); ++i) {
            double pull = 0;
            for (int64_t j = 0; j < p.k; ++j) {
              const uint8_t code = p.codes[static_cast<size_t>(r * p.k + j)];
              pull += q.h(i, j) *
                      (double{p.levels[p.at(r, j) << 2 | code]} - double{p.w[static_cast<size_t>(r * p.k + j)]});
              if (j / group_size == g) weight += std::fabs(q.h(i, j));
            }
            const uint8_t code = p.codes[static_cast<size_t>(r * p.k + i)];
            for (int b = 0; b < 2; ++b) sums[b] += pull * ((code >> b & 1) - (centred ? 0.5 : 0.0));
            sums[2] += centred ? 0 : pull;
          }
          // Cauchy's bound on what it could be.
          for (const double sum : sums)
            CHECK_LE(std::fabs(sum), 3e-3 * std::sqrt(weight * before / static_cast<double>(p.rows)));
        }
    }
}

// With the bits of a plane inverted, least squares wants its alpha negative: the bits are turned back, and the planes
// end where they would have ended.
LUTRA_TEST(quantize, bcq_refit_flips_planes_whose_alpha_turns_negative) {
  for (const bool centred : {false, true}) {
    Problem q(1, 90, GridOptions{4, -1, false, false, Dtype::kF16}, 8);
    double ends[2];
    for (const int inverted : {0, 1}) {
      Planes p(9, 90, options_of(2, 32, centred, 15), 8);
      CHECK(p.fit().ok());
      for (size_t i = 0; i < p.codes.count(); ++i) p.codes[i] = static_cast<uint8_t>(p.codes[i] ^ (inverted ? 2 : 0));
      CHECK(p.level().ok());
      double before = metric(p, q);
      Lanes lanes(2);
      for (int sweep = 0; sweep < 40; ++sweep) {
        CHECK(bcq_refit(lanes.context, {32, centred, 0.0, Dtype::kF16}, p.w.view, q.hessian.view, p.codes.view,
                        p.alphas.view, p.offsets.view)
                  .ok());
        CHECK(p.level().ok());
        const double now = metric(p, q);
        CHECK_LE(now, before * (1 + 1e-6));
        before = now;
      }
      for (size_t i = 0; i < p.alphas.count(); ++i) CHECK(p.alphas[i] >= 0);
      ends[inverted] = before;
    }
    CHECK_LE(std::fabs(ends[1] - ends[0]), 0.01 * ends[0]);
  }
}

LUTRA_TEST(quantize, bcq_refuses) {
  Planes p(3, 40, options_of(3, 16, false, 5), 9);
  CHECK(p.fit().ok());
  const auto with = [&](auto&& change) {
    BcqOptions kept = p.options;
    change(p.options);
    const Code code = p.fit().code;
    p.options = kept;
    return code;
  };
  CHECK(with([](BcqOptions& o) { o.bits = 0; }) == Code::kOption);
  CHECK(with([](BcqOptions& o) { o.bits = 2; }) == Code::kShape);
  CHECK(with([](BcqOptions& o) { o.group_size = 0; }) == Code::kOption);
  CHECK(with([](BcqOptions& o) { o.group_size = 32; }) == Code::kShape);
  CHECK(with([](BcqOptions& o) { o.rounds = -1; }) == Code::kOption);
  CHECK(with([](BcqOptions& o) { o.start = static_cast<BcqStart>(3); }) == Code::kOption);
  CHECK(with([](BcqOptions& o) { o.storage = Dtype::kF64; }) == Code::kDtype);
  Problem q(1, 40, GridOptions{4, -1, false, false, Dtype::kF16}, 8);
  Lanes lanes(1);
  const auto refit = [&] {
    return bcq_refit(lanes.context, {16, false, 0.0, Dtype::kF16}, p.w.view, q.hessian.view, p.codes.view,
                     p.alphas.view, p.offsets.view)
        .code;
  };
  CHECK(refit() == Code::kOk);
  p.codes[4] = 8;
  CHECK(refit() == Code::kOption);
  p.codes[4] = 0;
  q.hessian[3] = NAN;
  CHECK(refit() == Code::kNonFinite);
  p.importance[2] = -1;
  CHECK(p.fit().code == Code::kNonFinite);
  p.importance[2] = 1;
  p.w[3] = 1e6f;
  CHECK(p.fit().code == Code::kOption);
  p.w[3] = NAN;
  const Status status = p.fit();
  CHECK(status.code == Code::kNonFinite && status.found == 3);
}
