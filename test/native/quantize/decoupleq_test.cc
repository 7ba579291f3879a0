#include "quantize/decoupleq.h"

#include "core/checked.h"
#include "problem.h"
#include "quantize/storage.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// A layer whose codes come from its min-max grid by gptq's pass, and what decoupleq makes of its numbers.
struct Fit {
  Problem p;
  ScaleFit options;
  Operand<double> diagonal, pulled, errors;
  Operand<float> scales, offsets, levels;
  Operand<uint8_t> codes;

  Fit(int64_t rows, int64_t k, const GridOptions& grid, uint64_t seed)
      : p(rows, k, grid, seed),
        options{grid.bits, p.group_columns(), grid.symmetric, grid.scale_dtype},
        diagonal({k}),
        pulled({rows, k}),
        errors({rows}),
        scales({rows, p.groups}),
        offsets({rows, p.groups}),
        levels({rows, p.groups, int64_t{1} << grid.bits}),
        codes({rows, k}) {
    Operand<double> loss({rows});
    CHECK(p.solve(codes, loss).ok());
    for (int64_t i = 0; i < k; ++i) diagonal[static_cast<size_t>(i)] = 0.25 + 0.01 * static_cast<double>(i % 7);
    for (size_t i = 0; i < scales.count(); ++i) {
      scales[i] = stored_value(grid.scale_dtype, p.scales[i]);
      offsets[i] = stored_value(grid.scale_dtype, -double{p.scales[i]} * p.zeros[i]);
    }
  }

  DampedHessian metric() { return {p.hessian.view, diagonal.view}; }
  CodedRows coded() { return {codes.view, scales.view, offsets.view, errors.view}; }
  Status run(Context& context) {
    LUTRA_TRY(decoupleq_pull(context, metric(), p.w.view, pulled.view));
    return decoupleq_fit(context, options, metric(), p.w.view, pulled.view, coded());
  }
  void fit() { CHECK(run(p.lanes.context).ok()); }

  size_t at(int64_t r, int64_t j) const { return static_cast<size_t>(r * p.groups + j / options.group_size); }
  double number(int64_t r, int64_t j) {
    return codes[static_cast<size_t>(r * p.k + j)] - (options.symmetric ? double(1 << (options.bits - 1)) : 0.0);
  }
  double damped(int64_t i, int64_t j) { return p.h(i, j) + (i == j ? diagonal[static_cast<size_t>(i)] : 0.0); }
  std::vector<double> differences(int64_t r) {
    std::vector<double> d;
    for (int64_t j = 0; j < p.k; ++j)
      d.push_back(scales[at(r, j)] * number(r, j) + (options.symmetric ? 0.0 : offsets[at(r, j)]) - p.weight(r, j));
    return d;
  }
  // The row's differences times the damped Hessian.
  std::vector<double> slope(int64_t r) {
    const std::vector<double> d = differences(r);
    std::vector<double> sums(d.size());
    for (int64_t i = 0; i < p.k; ++i)
      for (int64_t j = 0; j < p.k; ++j) sums[static_cast<size_t>(i)] += damped(i, j) * d[static_cast<size_t>(j)];
    return sums;
  }
  double objective(int64_t r) {
    const std::vector<double> d = differences(r), s = slope(r);
    double sum = 0;
    for (size_t i = 0; i < d.size(); ++i) sum += d[i] * s[i];
    return sum;
  }
  std::vector<double> objectives() {
    std::vector<double> all;
    for (int64_t r = 0; r < p.rows; ++r) all.push_back(objective(r));
    return all;
  }
};

GridOptions grid(int bits, int64_t group_size, bool symmetric = false, Dtype storage = Dtype::kF16) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  options.symmetric = symmetric;
  options.scale_dtype = storage;
  return options;
}

struct Shape {
  int64_t rows, k, group_size;
};
std::vector<Shape> shapes() {
  if (quick()) return {{5, 70, 32}, {3, 40, -1}};
  return {{5, 70, 32}, {3, 40, -1}, {1, 1, 16}, {2, 33, 32}, {7, 130, 16}, {2, 300, -1}, {3, 290, 160}};
}

}  // namespace

LUTRA_TEST(decoupleq, the_fit_never_raises_the_objective_and_tells_it) {
  for (const Shape& s : shapes())
    for (const bool symmetric : {false, true})
      for (const int bits : {2, 4})
        for (const Dtype storage : {Dtype::kF16, Dtype::kBF16, Dtype::kF32}) {
          Fit f(s.rows, s.k, grid(bits, s.group_size, symmetric, storage), 7);
          const std::vector<double> before = f.objectives();
          f.fit();
          for (int64_t r = 0; r < s.rows; ++r) {
            const double found = f.objective(r);
            CHECK_LE(found, before[static_cast<size_t>(r)] * (1 + 1e-12));
            double power = 0;
            for (int64_t j = 0; j < s.k; ++j) power += f.p.weight(r, j) * f.pulled[static_cast<size_t>(r * s.k + j)];
            CHECK_LE(std::fabs(found - f.errors[static_cast<size_t>(r)]), 1e-12 * power);
            for (int64_t g = 0; g < f.p.groups; ++g) {
              const size_t at = static_cast<size_t>(r * f.p.groups + g);
              CHECK(f.scales[at] == stored_value(storage, f.scales[at]));
              CHECK(f.offsets[at] == stored_value(storage, f.offsets[at]));
            }
          }
        }
}

// At the least squares the Hessian times what is left is orthogonal to every column of the fit. Numbers of f32 are
// within their rounding of it, and so is the value that the optimum must have, w H w - right . solution.
LUTRA_TEST(decoupleq, what_is_left_is_orthogonal_to_codes_and_ones) {
  for (const Shape& s : shapes())
    for (const bool symmetric : {false, true}) {
      Fit f(s.rows, s.k, grid(3, s.group_size, symmetric, Dtype::kF32), 11);
      f.fit();
      for (int64_t r = 0; r < s.rows; ++r) {
        const std::vector<double> slope = f.slope(r);
        double whole = 0, explained = 0;
        for (int64_t j = 0; j < s.k; ++j) {
          const double pull = f.pulled[static_cast<size_t>(r * s.k + j)];
          whole += f.p.weight(r, j) * pull;
          explained += (f.differences(r)[static_cast<size_t>(j)] + f.p.weight(r, j)) * pull;
        }
        for (int64_t g = 0; g < f.p.groups; ++g) {
          double codes = 0, ones = 0, power = 0;
          bool constant = true;
          for (int64_t j = g * f.options.group_size; j < std::min(s.k, (g + 1) * f.options.group_size); ++j) {
            codes += slope[static_cast<size_t>(j)] * f.number(r, j);
            ones += slope[static_cast<size_t>(j)];
            power += std::fabs(f.pulled[static_cast<size_t>(r * s.k + j)]) * 8;
            constant &= f.number(r, j) == f.number(r, g * f.options.group_size);
          }
          if (!constant || !symmetric) CHECK_LE(std::fabs(codes), 4e-6 * power);
          if (!symmetric) CHECK_LE(std::fabs(ones), 4e-6 * power);
        }
        CHECK_LE(std::fabs(f.objective(r) - (whole - explained)), 4e-6 * whole);
      }
    }
}

// Weights that a grid of stored numbers gives exactly come back exactly, from any start: fp64 sums leave no trace.
LUTRA_TEST(decoupleq, numbers_that_fit_exactly_are_found) {
  for (const bool symmetric : {false, true})
    for (const int64_t group_size : {int64_t{16}, int64_t{-1}}) {
      Fit f(6, 90, grid(2, group_size, symmetric), 3);
      std::mt19937_64 random(5);
      std::vector<float> scales, offsets;
      for (size_t i = 0; i < f.scales.count(); ++i) {
        // One in three is negative: the fit is free to turn a group round.
        scales.push_back(stored_value(Dtype::kF16, (i % 3 ? 1 : -1) * (0.5 + double(random() % 100) / 64)));
        offsets.push_back(stored_value(Dtype::kF16, double(random() % 100) / 32 - 1));
      }
      for (int64_t r = 0; r < 6; ++r)
        for (int64_t j = 0; j < 90; ++j)
          f.p.w[static_cast<size_t>(r * 90 + j)] =
              static_cast<float>(scales[f.at(r, j)] * f.number(r, j) + (symmetric ? 0.0 : offsets[f.at(r, j)]));
      f.fit();
      for (int64_t r = 0; r < 6; ++r) {
        CHECK_LE(f.objective(r), 1e-20);
        for (int64_t j = 0; j < 90; ++j) CHECK(f.scales[f.at(r, j)] == scales[f.at(r, j)]);
      }
    }
}

LUTRA_TEST(decoupleq, one_group_is_the_closed_form_of_two_unknowns) {
  Fit f(9, 60, grid(2, -1, false, Dtype::kF32), 13);
  f.fit();
  for (int64_t r = 0; r < 9; ++r) {
    double aa = 0, a1 = 0, one = 0, aw = 0, ow = 0;
    for (int64_t i = 0; i < 60; ++i)
      for (int64_t j = 0; j < 60; ++j) {
        const double h = f.damped(i, j);
        aa += f.number(r, i) * h * f.number(r, j);
        a1 += f.number(r, i) * h;
        one += h;
        aw += f.number(r, i) * h * f.p.weight(r, j);
        ow += h * f.p.weight(r, j);
      }
    const double determinant = aa * one - a1 * a1;
    const double scale = (aw * one - ow * a1) / determinant, offset = (aa * ow - a1 * aw) / determinant;
    CHECK(f.scales[static_cast<size_t>(r)] == static_cast<float>(scale));
    CHECK_LE(std::fabs(f.offsets[static_cast<size_t>(r)] - offset), 2e-7 * std::fabs(offset) + 1e-12);
  }
}

LUTRA_TEST(decoupleq, a_group_of_one_code_keeps_its_scale) {
  for (const bool symmetric : {false, true})
    for (const uint8_t code : {uint8_t{0}, uint8_t{2}, uint8_t{3}}) {
      Fit f(4, 80, grid(2, 32, symmetric), 17);
      for (int64_t r = 0; r < 4; r += 2)
        for (int64_t j = 32; j < 64; ++j) f.codes[static_cast<size_t>(r * 80 + j)] = code;
      const std::vector<double> before = f.objectives();
      const std::vector<float> scales(f.scales.data(), f.scales.data() + f.scales.count());
      f.fit();
      for (int64_t r = 0; r < 4; ++r) {
        CHECK_LE(f.objective(r), before[static_cast<size_t>(r)] * (1 + 1e-12));
        CHECK(std::isfinite(f.errors[static_cast<size_t>(r)]));
      }
      const bool says_nothing = !symmetric || code == 2;
      for (const int64_t r : {0, 2}) CHECK((f.scales[f.at(r, 32)] == scales[f.at(r, 32)]) == says_nothing);
      for (const int64_t r : {0, 2}) CHECK(f.scales[f.at(r, 0)] != scales[f.at(r, 0)]);
    }
}

LUTRA_TEST(decoupleq, the_unit_of_the_hessian_and_the_lanes_do_not_matter) {
  const auto result = [](double factor, int lanes) {
    Fit f(401, 75, grid(2, 16), 19);  // more rows than are held at once
    for (size_t i = 0; i < f.p.hessian.count(); ++i) f.p.hessian[i] *= factor;
    for (size_t i = 0; i < f.diagonal.count(); ++i) f.diagonal[i] *= factor;
    Lanes own(lanes);
    CHECK(f.run(own.context).ok());
    std::vector<float> numbers(f.scales.data(), f.scales.data() + f.scales.count());
    numbers.insert(numbers.end(), f.offsets.data(), f.offsets.data() + f.offsets.count());
    for (size_t i = 0; i < f.errors.count(); ++i) numbers.push_back(static_cast<float>(f.errors[i] / factor));
    return numbers;
  };
  const std::vector<float> plain = result(1, 1);
  CHECK(plain == result(1, 3));
  CHECK(plain == result(1024, 2));
  CHECK(plain == result(0x1p-40, 2));
}

// The search's grid is no worse than the full range with the same nearest codes, and better somewhere.
LUTRA_TEST(decoupleq, the_search_lowers_the_objective_of_nearest_codes) {
  for (const bool symmetric : {false, true})
    for (const int64_t group_size : {int64_t{32}, int64_t{-1}}) {
      Fit f(12, 100, grid(2, group_size, symmetric), 23);
      Context& context = f.p.lanes.context;
      const auto round = [&] {
        const LevelKind kind = symmetric ? LevelKind::kZeroCode : LevelKind::kRealOffset;
        CHECK(levels_of(context, kind, f.scales.view, symmetric ? f.p.zeros.view : f.offsets.view, f.levels.view).ok());
        CHECK(round_to_levels(context, f.options.group_size, f.p.w.view, f.levels.view, f.codes.view).ok());
        return f.objectives();
      };
      const std::vector<double> full = round();
      CHECK(decoupleq_search(context, f.p.options, f.metric(), f.p.w.view, f.scales.view, f.offsets.view).ok());
      const std::vector<double> found = round();
      double before = 0, after = 0;
      for (size_t r = 0; r < full.size(); ++r) {
        CHECK_LE(found[r], full[r] * 1.02);  // the offset of the start is a code of its scale, the search's is real
        before += full[r];
        after += found[r];
      }
      CHECK_LE(after, 0.9 * before);
      for (size_t i = 0; i < f.scales.count(); ++i)
        CHECK(f.scales[i] == stored_value(Dtype::kF16, f.scales[i]) && f.scales[i] > 0);
    }
}

LUTRA_TEST(decoupleq, better_rows_are_taken_whole) {
  Fit best(5, 40, grid(2, 16), 29), other(5, 40, grid(2, 16), 31);
  best.fit();
  other.fit();
  for (size_t r = 0; r < 5; ++r) best.errors[r] = other.errors[r] + (r == 1 || r == 3 ? 1 : 0);
  best.errors[4] = NAN;
  const std::vector<float> kept(best.scales.data(), best.scales.data() + best.scales.count());
  int64_t taken = 0;
  CHECK(take_better_rows(best.p.lanes.context, best.coded(), other.coded(), &taken).ok());
  CHECK(taken == 2);
  for (int64_t r = 0; r < 5; ++r) {
    const bool moved = r == 1 || r == 3;
    CHECK((std::memcmp(best.codes.data() + r * 40, other.codes.data() + r * 40, 40) == 0) == moved);
    CHECK(best.scales[best.at(r, 20)] == (moved ? other.scales[other.at(r, 20)] : kept[best.at(r, 20)]));
    CHECK((best.offsets[best.at(r, 39)] == other.offsets[other.at(r, 39)]) == moved);
    if (moved) CHECK(best.errors[static_cast<size_t>(r)] == other.errors[static_cast<size_t>(r)]);
  }
}

LUTRA_TEST(decoupleq, refuses) {
  Fit f(3, 20, grid(2, 8), 37);
  Context& context = f.p.lanes.context;
  CHECK(f.run(context).ok());
  const auto code = [&](const ScaleFit& options) {
    return decoupleq_fit(context, options, f.metric(), f.p.w.view, f.pulled.view, f.coded()).code;
  };
  CHECK(code({2, 0, false, Dtype::kF16}) == Code::kOption);
  CHECK(code({0, 8, false, Dtype::kF16}) == Code::kOption);
  CHECK(code({9, 8, false, Dtype::kF16}) == Code::kOption);
  CHECK(code({1, 8, false, Dtype::kF16}) == Code::kOption);  // codes have two bits
  CHECK(code({2, 16, false, Dtype::kF16}) == Code::kShape);
  CHECK(code({2, 8, false, Dtype::kU8}) == Code::kDtype);
  CHECK(decoupleq_pull(context, f.metric(), f.p.w.view, f.p.w.view).code == Code::kDtype);
  CHECK(decoupleq_pull(context, {f.diagonal.view, f.diagonal.view}, f.p.w.view, f.pulled.view).code == Code::kShape);
  CHECK(decoupleq_search(context, f.p.options, f.metric(), f.p.w.view, f.codes.view, f.offsets.view).code ==
        Code::kDtype);
  f.scales[4] = NAN;
  CHECK(code(f.options) == Code::kNonFinite);
  f.scales[4] = 1;
  f.pulled[7] = NAN;
  CHECK(code(f.options) == Code::kNonFinite);
  // Finite numbers whose objective is not: it is not taken for zero.
  for (size_t i = 0; i < f.pulled.count(); ++i) f.pulled[i] = i % 2 ? 1e308 : -1e308;
  for (size_t i = 0; i < f.p.w.count(); ++i) f.p.w[i] = 1e30f;
  CHECK(code(f.options) == Code::kNonFinite);
  CHECK(f.run(context).ok());
  f.diagonal[3] = NAN;
  CHECK(f.run(context).code == Code::kNonFinite);
  f.diagonal[3] = 1;
  f.p.w[9] = NAN;
  CHECK(f.run(context).code == Code::kNonFinite);
  f.p.w[9] = 1;
  f.p.h(2, 3) = INFINITY;
  CHECK(code(f.options) == Code::kNonFinite);
  CHECK(f.run(context).code == Code::kNonFinite);
}

// In a metric that couples nothing, the box's nearest point is where weights start, and rounding is to nearest.
LUTRA_TEST(decoupleq, the_descent_with_a_plain_metric_rounds) {
  for (const bool symmetric : {false, true}) {
    Fit f(7, 75, grid(3, 32, symmetric), 41);
    for (int64_t i = 0; i < 75; ++i)
      for (int64_t j = 0; j < 75; ++j) f.p.h(i, j) = i == j ? 1.0 + double(i % 3) : 0.0;
    Operand<uint8_t> rounded({7, 75});
    const LevelKind kind = symmetric ? LevelKind::kZeroCode : LevelKind::kRealOffset;
    Context& context = f.p.lanes.context;
    CHECK(levels_of(context, kind, f.scales.view, symmetric ? f.p.zeros.view : f.offsets.view, f.levels.view).ok());
    CHECK(round_to_levels(context, f.options.group_size, f.p.w.view, f.levels.view, rounded.view).ok());
    const Descent descent{20, 2, 0.02};
    CHECK(decoupleq_descend(context, f.options, descent, f.metric(), f.p.w.view, f.scales.view, f.offsets.view,
                            f.codes.view)
              .ok());
    int64_t same = 0;  // a weight within rounding of halfway may fall the other way
    for (size_t i = 0; i < f.codes.count(); ++i) same += f.codes[i] == rounded[i];
    CHECK(same >= static_cast<int64_t>(f.codes.count()) - 2);
  }
}

LUTRA_TEST(decoupleq, the_descent_betters_rounding_and_ignores_lanes_and_units) {
  const auto codes = [](double factor, int lanes, double* before, double* after) {
    Fit f(9, 70, grid(2, 32), 43);
    for (size_t i = 0; i < f.p.hessian.count(); ++i) f.p.hessian[i] *= factor;
    for (size_t i = 0; i < f.diagonal.count(); ++i) f.diagonal[i] *= factor;
    f.scales[f.at(2, 40)] = 0;                          // every code is the offset
    f.offsets[f.at(3, 0)] += 3 * f.scales[f.at(3, 0)];  // a grid turned round
    f.scales[f.at(3, 0)] *= -1;
    Lanes own(lanes);
    CHECK(levels_of(own.context, LevelKind::kRealOffset, f.scales.view, f.offsets.view, f.levels.view).ok());
    CHECK(round_to_levels(own.context, 32, f.p.w.view, f.levels.view, f.codes.view).ok());
    *before = 0;
    for (const double objective : f.objectives()) *before += objective;
    const Descent descent{60, 3, 0.03};
    CHECK(decoupleq_descend(own.context, f.options, descent, f.metric(), f.p.w.view, f.scales.view, f.offsets.view,
                            f.codes.view)
              .ok());
    *after = 0;
    for (const double objective : f.objectives()) *after += objective;
    return std::vector<uint8_t>(f.codes.data(), f.codes.data() + f.codes.count());
  };
  double before, after;
  const std::vector<uint8_t> plain = codes(1, 1, &before, &after);
  CHECK_LE(after, 0.7 * before);
  CHECK(plain == codes(1, 3, &before, &after));
  CHECK(plain == codes(1024, 2, &before, &after));
  for (const uint8_t code : plain) CHECK(code < 4);
}

// Slopes beyond fp32 have no direction: weights end somewhere on their grid.
LUTRA_TEST(decoupleq, the_descent_of_weights_that_overflow_stays_on_the_grid) {
  Fit f(3, 20, grid(2, 8), 53);
  for (size_t i = 0; i < f.p.w.count(); ++i) f.p.w[i] = i % 2 ? 3e38f : -3e38f;
  for (size_t i = 0; i < f.p.hessian.count(); ++i) f.p.hessian[i] = 1;
  CHECK(decoupleq_descend(f.p.lanes.context, f.options, {2, 2, 0.1}, f.metric(), f.p.w.view, f.scales.view,
                          f.offsets.view, f.codes.view)
            .ok());
  for (size_t i = 0; i < f.codes.count(); ++i) CHECK(f.codes[i] < 4);
}

LUTRA_TEST(decoupleq, the_descent_refuses) {
  Fit f(3, 20, grid(2, 8), 47);
  const auto code = [&](const Descent& descent) {
    return decoupleq_descend(f.p.lanes.context, f.options, descent, f.metric(), f.p.w.view, f.scales.view,
                             f.offsets.view, f.codes.view)
        .code;
  };
  CHECK(code({1, 1, 0.1}) == Code::kOk);
  CHECK(code({-1, 1, 0.1}) == Code::kOption);
  CHECK(code({1, -1, 0.1}) == Code::kOption);
  CHECK(code({1, 1, 0}) == Code::kOption);
  f.options.group_size = 16;
  CHECK(code({1, 1, 0.1}) == Code::kShape);
  f.options.group_size = 8;
  f.scales[1] = INFINITY;
  CHECK(code({1, 1, 0.1}) == Code::kNonFinite);
}
