#include "quantize/fbquant.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "problem.h"
#include "quantize/pair.h"

using namespace lutra;
using namespace lutra::test;

namespace {

struct Pair {
  Operand<float> b, a;
  Pair(const Problem& problem, int64_t rank) : b({problem.rows, rank}), a({rank, problem.k}) {}
  // Small against the weights, as what rounding leaves is.
  void randomize(uint64_t seed, float size = 0.2f) {
    fill(b, Distribution::kNormal, seed);
    fill(a, Distribution::kNormal, seed + 1);
    for (size_t i = 0; i < b.count(); ++i) b[i] *= size;
    for (size_t i = 0; i < a.count(); ++i) a[i] *= size;
  }
  void clear() {
    std::fill_n(b.data(), b.count(), 0.0f);
    std::fill_n(a.data(), a.count(), 0.0f);
  }
  double at(int64_t r, int64_t j) const {
    const int64_t rank = a.view.shape[0], k = a.view.shape[1];
    double sum = 0.0;
    for (int64_t i = 0; i < rank; ++i)
      sum += static_cast<double>(b.view.as<float>()[r * rank + i]) * a.view.as<float>()[i * k + j];
    return sum;
  }
};

// The codes that W - b a has, and what they stand for: a grid of its own.
struct Rest {
  Problem& problem;
  Operand<float> u{problem.rows, problem.k};
  Operand<float> scales{problem.rows, problem.groups}, zeros{problem.rows, problem.groups};
  Operand<float> levels{problem.rows, problem.groups, int64_t{1} << problem.options.bits};
  Operand<uint8_t> codes{problem.rows, problem.k};

  Rest(Problem& problem_, const Pair& pair) : problem(problem_) {
    Context& context = problem.lanes.context;
    CHECK(subtract_pair(context, problem.w.view, pair.b.view, pair.a.view, u.view).ok());
    CHECK(fit_grid(context, problem.options, u.view, scales.view, zeros.view, nullptr).ok());
    CHECK(levels_of(context, LevelKind::kZeroCode, scales.view, zeros.view, levels.view).ok());
    CHECK(round_to_levels(context, problem.group_columns(), u.view, levels.view, codes.view).ok());
  }
  double value(int64_t r, int64_t j) {
    const int64_t count = int64_t{1} << problem.options.bits;
    const int64_t group = r * problem.groups + problem.group_of[static_cast<size_t>(j)];
    return levels[static_cast<size_t>(group * count + codes[static_cast<size_t>(r * problem.k + j)])];
  }
  double scale(int64_t r, int64_t j) {
    return scales[static_cast<size_t>(r * problem.groups + problem.group_of[static_cast<size_t>(j)])];
  }
  // tr(E H E^T) in fp64 with these codes held and another pair beside them.
  double loss(const Pair& pair) {
    const int64_t k = problem.k;
    double sum = 0.0;
    std::vector<double> e(static_cast<size_t>(k));
    for (int64_t r = 0; r < problem.rows; ++r) {
      for (int64_t j = 0; j < k; ++j) e[static_cast<size_t>(j)] = value(r, j) + pair.at(r, j) - problem.weight(r, j);
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < k; ++j) sum += e[static_cast<size_t>(i)] * problem.h(i, j) * e[static_cast<size_t>(j)];
    }
    return sum;
  }
};

std::vector<std::unique_ptr<Problem>> problems() {
  std::vector<std::unique_ptr<Problem>> all;
  all.push_back(std::make_unique<Problem>(6, 16, GridOptions{3, -1, false, false, Dtype::kF16}, 1));
  all.push_back(std::make_unique<Problem>(9, 45, GridOptions{2, 16, false, false, Dtype::kF16}, 2));
  all.push_back(std::make_unique<Problem>(5, 64, GridOptions{3, 32, true, false, Dtype::kBF16}, 3));
  all.push_back(std::make_unique<Problem>(1, 16, GridOptions{2, 16, false, false, Dtype::kF16}, 4));
  return all;
}

Status descend(Problem& problem, const FbquantOptions& options, Pair& pair, FbquantResult& result, int lanes = 2) {
  Lanes own(lanes);
  return fbquant_descend(own.context, options, problem.w.view, problem.hessian.view, pair.b.view, pair.a.view, &result);
}

double loss_of(Problem& problem, Pair& pair) {
  Pair gradient(problem, pair.a.view.shape[0]);
  double loss = -1.0;
  CHECK(fbquant_gradient(problem.lanes.context, problem.options, problem.w.view, problem.hessian.view, pair.b.view,
                         pair.a.view, &loss, gradient.b.view, gradient.a.view)
            .ok());
  return loss;
}

}  // namespace

LUTRA_TEST(quantize, fbquant_gradient_is_that_of_the_loss_with_codes_held) {
  for (const auto& problem : problems()) {
    const int64_t rank = std::min<int64_t>(problem->rows, 3);
    Pair pair(*problem, rank), gradient(*problem, rank);
    pair.randomize(7);
    double loss = 0.0;
    CHECK(fbquant_gradient(problem->lanes.context, problem->options, problem->w.view, problem->hessian.view,
                           pair.b.view, pair.a.view, &loss, gradient.b.view, gradient.a.view)
              .ok());
    Rest rest(*problem, pair);
    CHECK_LE(std::fabs(rest.loss(pair) - loss), 1e-5 * loss);
    // The loss is a square in every single number: central differences are exact, for any distance.
    const auto check = [&](Operand<float>& x, Operand<float>& found) {
      double off = 0.0, whole = 0.0;
      for (size_t i = 0; i < x.count(); ++i) {
        const float kept = x[i];
        x[i] = kept + 0.25f;
        const double above = rest.loss(pair), high = x[i];
        x[i] = kept - 0.25f;
        const double difference = (above - rest.loss(pair)) / (high - x[i]);
        x[i] = kept;
        off += (found[i] - difference) * (found[i] - difference);
        whole += difference * difference;
      }
      // Through a quantizer that passed gradients on, the loss would not feel the pair at all.
      CHECK(whole > 1e-3 * loss);
      CHECK_LE(std::sqrt(off), 2e-6 * std::sqrt(whole));
    };
    check(pair.b, gradient.b);
    check(pair.a, gradient.a);
  }
}

LUTRA_TEST(quantize, fbquant_without_a_pair_is_round_to_nearest) {
  for (const auto& problem : problems()) {
    Pair pair(*problem, 1);
    pair.clear();
    Rest rest(*problem, pair);
    Operand<uint8_t> rounded({problem->rows, problem->k});
    CHECK(problem->round(rounded).ok());
    CHECK(rest.codes.same_bits(rounded));
    double loss = 0.0;
    for (int64_t r = 0; r < problem->rows; ++r) loss += problem->loss(r, rounded);
    FbquantResult result;
    CHECK(descend(*problem, {problem->options, Dtype::kF16, 0, 1.0}, pair, result).ok());
    CHECK_LE(std::fabs(result.best - loss), 1e-5 * loss);
    CHECK(result.start == result.best && result.best_step == 0 && result.steps == 0);
  }
}

LUTRA_TEST(quantize, fbquant_error_is_within_half_a_step_of_what_is_stored) {
  for (const auto& problem : problems())
    for (const Dtype storage : {Dtype::kF16, Dtype::kBF16, Dtype::kI8}) {
      const int64_t rank = std::min<int64_t>(problem->rows, 4);
      Pair pair(*problem, rank);
      FbquantResult result;
      CHECK(descend(*problem, {problem->options, storage, 40, 0.05, true}, pair, result).ok());
      Context& context = problem->lanes.context;
      CHECK(round_rows(context, storage, pair.b.view, pair.b.view).ok());
      CHECK(round_rows(context, storage, pair.a.view, pair.a.view).ok());
      // What is stored has the very loss that the descent saw.
      CHECK(loss_of(*problem, pair) == result.best);
      Rest rest(*problem, pair);
      const double largest = largest_code(problem->options.bits);
      for (int64_t r = 0; r < problem->rows; ++r)
        for (int64_t j = 0; j < problem->k; ++j) {
          const double error = rest.value(r, j) + pair.at(r, j) - problem->weight(r, j);
          CHECK_LE(std::fabs(error), rest.scale(r, j) / 2 * (1 + 0x1p-10 * largest));
        }
    }
}

LUTRA_TEST(quantize, fbquant_descends_below_round_to_nearest) {
  Problem problem(24, 64, {3, 32, false, false, Dtype::kF16}, 11);
  Pair zero(problem, 4), pair(problem, 4);
  zero.clear();
  const double rounded = loss_of(problem, zero);
  FbquantResult result;
  CHECK(descend(problem, {problem.options, Dtype::kF16, 150, 0.05, true}, pair, result).ok());
  // Where b is zero the start is round to nearest.
  CHECK(result.start == rounded);
  CHECK_LE(result.best, 0.6 * rounded);
  CHECK(result.steps == 150 && result.best_step > 0);
  // Going on from there never loses.
  FbquantResult again;
  CHECK(descend(problem, {problem.options, Dtype::kF16, 30, 0.02}, pair, again).ok());
  CHECK(again.start == result.best);
  CHECK_LE(again.best, again.start);
}

LUTRA_TEST(quantize, fbquant_does_not_see_how_a_pair_is_split) {
  for (const auto& problem : problems()) {
    if (problem->rows < 3) continue;
    Pair pair(*problem, 3), other(*problem, 3);
    pair.randomize(21);
    std::copy_n(pair.a.data(), pair.a.count(), other.a.data());
    std::copy_n(pair.b.data(), pair.b.count(), other.b.data());
    for (int64_t i = 0; i < 3; ++i) {
      const float factor = i == 1 ? -8.0f : 0.25f;
      for (int64_t r = 0; r < problem->rows; ++r) other.b[static_cast<size_t>(r * 3 + i)] *= factor;
      for (int64_t j = 0; j < problem->k; ++j) other.a[static_cast<size_t>(i * problem->k + j)] /= factor;
    }
    Rest rest(*problem, pair), same(*problem, other);
    CHECK(rest.codes.same_bits(same.codes) && rest.scales.same_bits(same.scales));
    CHECK(loss_of(*problem, pair) == loss_of(*problem, other));
  }
}

LUTRA_TEST(quantize, fbquant_is_the_same_for_any_lanes_and_any_unit) {
  Problem problem(20, 45, {2, 16, false, false, Dtype::kF32}, 5);
  const FbquantOptions options{problem.options, Dtype::kBF16, 25, 0.05, true};
  Pair one(problem, 3), three(problem, 3), scaled(problem, 3);
  FbquantResult first, second, third;
  CHECK(descend(problem, options, one, first, 1).ok());
  CHECK(descend(problem, options, three, second, 3).ok());
  CHECK(one.a.same_bits(three.a) && one.b.same_bits(three.b) && first.best == second.best);
  // Weights of four times the size and inputs of another: every number of the pair doubles.
  for (size_t i = 0; i < problem.w.count(); ++i) problem.w[i] *= 4;
  for (size_t i = 0; i < problem.hessian.count(); ++i) problem.hessian[i] *= 0x1p40;
  CHECK(descend(problem, options, scaled, third).ok());
  for (size_t i = 0; i < one.a.count(); ++i) CHECK(scaled.a[i] == 2 * one.a[i]);
  for (size_t i = 0; i < one.b.count(); ++i) CHECK(scaled.b[i] == 2 * one.b[i]);
  CHECK(third.best == 0x1p44 * first.best && third.best_step == first.best_step);
}

LUTRA_TEST(quantize, fbquant_refuses) {
  Problem problem(4, 32, {3, 16, false, false, Dtype::kF16}, 6);
  Pair pair(problem, 2), wide(problem, 5);
  pair.randomize(1);
  wide.randomize(1);
  FbquantResult result;
  const FbquantOptions options{problem.options, Dtype::kF16, 3, 0.1};
  CHECK(descend(problem, options, wide, result).code == Code::kOption);
  CHECK(descend(problem, {problem.options, Dtype::kF32, 3, 0.1}, pair, result).code == Code::kDtype);
  CHECK(descend(problem, {problem.options, Dtype::kF16, -1, 0.1}, pair, result).code == Code::kOption);
  CHECK(descend(problem, {{3, 16, false, true, Dtype::kF16}, Dtype::kF16, 3, 0.1}, pair, result).code == Code::kOption);
  // Steps that leave what the storage type holds end the descent; a start that does is refused.
  CHECK(descend(problem, {problem.options, Dtype::kF16, 30, 1e8}, pair, result).ok());
  CHECK(result.steps < 30 && result.best <= result.start);
  pair.a[0] = 1e9f;
  CHECK(descend(problem, options, pair, result).code == Code::kOption);
  pair.randomize(1);
  const double kept = problem.hessian[5];
  problem.hessian[5] = NAN;
  CHECK(descend(problem, options, pair, result).code == Code::kNonFinite);
  problem.hessian[5] = kept;
  Lanes lanes(2);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  CHECK(fbquant_descend(lanes.context, options, problem.w.view, problem.hessian.view, pair.b.view, pair.a.view, &result)
            .code == Code::kCancelled);
}
