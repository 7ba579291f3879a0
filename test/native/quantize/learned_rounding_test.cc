#include "quantize/learned_rounding.h"

#include "problem.h"
#include "quantize/head_quadratic_form.h"
#include "quantize/quadratic_form.h"

using namespace lutra;
using namespace lutra::test;

namespace {

RoundingOptions rounding(Problem& p, int64_t iterations) {
  RoundingOptions options;
  options.bits = p.options.bits;
  options.group_size = p.group_columns();
  options.iterations = iterations;
  return options;
}

GridOptions grid(int bits, int64_t group_size) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  return options;
}

// d by d matrices: `scale` times the identity, coupled where asked.
void fill_row_hessians(Operand<double>& g, double scale, double coupling) {
  const int64_t d = g.view.shape[1];
  for (int64_t i = 0; i < g.view.shape[0] * d; ++i)
    for (int64_t j = 0; j < d; ++j)
      g[static_cast<size_t>(i * d + j)] = scale * ((i % d == j ? 1.0 - coupling : 0.0) + coupling);
}

Status learn(Problem& p, const RoundingOptions& options, const TensorView& rows, Operand<uint8_t>& codes,
             int lanes = 2) {
  Lanes own(lanes);
  return learn_rounding(own.context, options, p.w.view, p.w.view, p.scales.view, p.zeros.view, p.hessian.view, rows,
                        codes.view);
}

double error_of(Problem& p, Operand<uint8_t>& codes, const TensorView& rows) {
  Operand<float> moved({p.rows, p.k});
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t j = 0; j < p.k; ++j) {
      const size_t at = static_cast<size_t>(r * p.k + j);
      moved[at] = static_cast<float>(p.value(r, j, codes[at]) - p.weight(r, j));
    }
  double value = 0;
  CHECK((rows.data ? quadratic_form_of_heads(p.lanes.context, moved.view, p.hessian.view, rows, &value)
                   : quadratic_form(p.lanes.context, moved.view, p.hessian.view, &value))
            .ok());
  return value;
}

}  // namespace

LUTRA_TEST(quantize, learned_rounding_lowers_the_error_within_one_code) {
  for (const bool coupled : {false, true})
    for (const int64_t group_size : {int64_t{-1}, int64_t{16}}) {
      Problem p(12, 40, grid(3, group_size), 3);
      Operand<double> g({3, 4, 4});
      fill_row_hessians(g, 2.0, 0.8);
      const TensorView rows = coupled ? g.view : TensorView{};
      Operand<uint8_t> rounded({12, 40}), codes({12, 40});
      CHECK(p.round(rounded).ok() && p.round(codes).ok());
      CHECK(learn(p, rounding(p, 400), rows, codes).ok());
      int64_t moved = 0;
      for (size_t i = 0; i < codes.count(); ++i) {
        const int step = std::abs(int{codes[i]} - int{rounded[i]});
        CHECK(step <= 1);
        moved += step;
      }
      CHECK(moved > 20);
      CHECK_LE(error_of(p, codes, rows), 0.7 * error_of(p, rounded, rows));
    }
}

LUTRA_TEST(quantize, no_iteration_leaves_the_codes) {
  Problem p(5, 33, grid(4, 16), 4);
  Operand<uint8_t> rounded({5, 33}), codes({5, 33});
  CHECK(p.round(rounded).ok() && p.round(codes).ok());
  CHECK(learn(p, rounding(p, 0), {}, codes).ok());
  CHECK(codes.same_bits(rounded));
}

// Rows that are not coupled learn as AdaRound's layer does, whatever the unit of the row Hessian.
LUTRA_TEST(quantize, learned_rounding_with_unit_row_hessians_is_that_of_the_layer) {
  Problem p(12, 40, grid(3, 16), 5);
  Operand<double> ones({12, 1, 1}), fours({12, 1, 1});
  fill_row_hessians(ones, 1.0, 0.0);
  fill_row_hessians(fours, 4.0, 0.0);
  Operand<uint8_t> layer({12, 40}), unit({12, 40}), larger({12, 40}), lanes({12, 40});
  for (Operand<uint8_t>* codes : {&layer, &unit, &larger, &lanes}) CHECK(p.round(*codes).ok());
  const RoundingOptions options = rounding(p, 200);
  CHECK(learn(p, options, {}, layer).ok());
  CHECK(learn(p, options, ones.view, unit).ok());
  CHECK(learn(p, options, fours.view, larger).ok());
  CHECK(learn(p, options, {}, lanes, 5).ok());
  CHECK(unit.same_bits(layer) && larger.same_bits(layer) && lanes.same_bits(layer));
}

// Finite differences of 0.5 (scale h(v) - target)^2 + regulariser.
LUTRA_TEST(quantize, rounding_gradient_is_the_derivative) {
  const double scale = 0.7, target = 0.3, weight = 1.5, beta = 3.0, step = 1e-6;
  const auto loss = [&](double v) {
    const double h = rounded_share(v), off = scale * h - target;
    return 0.5 * off * off + weight * (1.0 - std::pow(std::fabs(2 * h - 1), beta));
  };
  for (const double v : {-2.0, -0.7, 0.4, 1.9}) {
    const double by_value = scale * rounded_share(v) - target;
    const double expected = (loss(v + step) - loss(v - step)) / (2 * step);
    CHECK_LE(std::fabs(rounding_gradient(v, by_value, scale, true, weight, beta) - expected), 1e-7);
  }
  CHECK(rounding_gradient(9.0, 1.0, scale, true, weight, beta) == 0.0);
  CHECK(rounding_gradient(0.3, 1.0, scale, false, 0.0, beta) == 0.0);
  CHECK(rounded_share(9.0) == 1.0 && rounded_share(-9.0) == 0.0);
}

LUTRA_TEST(quantize, learn_rounding_refuses_and_ends_when_cancelled) {
  Problem p(6, 20, grid(2, 16), 6);
  Operand<uint8_t> codes({6, 20});
  CHECK(p.round(codes).ok());
  Operand<double> wrong({2, 4, 4});
  RoundingOptions options = rounding(p, 3);
  CHECK(learn(p, options, {}, codes).ok());
  CHECK(learn(p, options, wrong.view, codes).code == Code::kShape);
  options.iterations = -1;
  CHECK(learn(p, options, {}, codes).code == Code::kOption);
  options = rounding(p, 3);
  options.learning_rate = NAN;
  CHECK(learn(p, options, {}, codes).code == Code::kOption);
  options = rounding(p, 3);
  options.group_size = 32;
  CHECK(learn(p, options, {}, codes).code == Code::kShape);
  options = rounding(p, 3);
  Operand<double> fits({2, 3, 3});
  fits[4] = NAN;
  CHECK(learn(p, options, fits.view, codes).code == Code::kNonFinite);
  Lanes lanes(2);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  CHECK(learn_rounding(lanes.context, options, p.w.view, p.w.view, p.scales.view, p.zeros.view, p.hessian.view, {},
                       codes.view)
            .code == Code::kCancelled);
  p.w[7] = INFINITY;
  CHECK(learn(p, options, {}, codes).code == Code::kNonFinite);
}
