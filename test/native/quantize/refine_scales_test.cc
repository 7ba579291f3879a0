#include "quantize/refine_scales.h"

#include <algorithm>

#include "problem.h"
#include "quantize/head_quadratic_form.h"
#include "quantize/quadratic_form.h"

using namespace lutra;
using namespace lutra::test;

namespace {

GridOptions grid(int bits, int64_t group_size) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  return options;
}

// G f64 [heads, d, d], positive definite.
void fill_row_hessians(Operand<double>& g, uint64_t seed) {
  const int64_t heads = g.view.shape[0], d = g.view.shape[1];
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (int64_t h = 0; h < heads; ++h) {
    std::vector<double> x(static_cast<size_t>(2 * d * d));
    for (double& v : x) v = normal(random) + 0.5;
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j < d; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < 2 * d; ++t)
          sum += x[static_cast<size_t>(t * d + i)] * x[static_cast<size_t>(t * d + j)];
        g[static_cast<size_t>((h * d + i) * d + j)] = sum;
      }
  }
}

double error_of(Problem& p, Operand<uint8_t>& codes, const TensorView& row_hessians) {
  Operand<float> moved({p.rows, p.k});
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t j = 0; j < p.k; ++j) {
      const size_t at = static_cast<size_t>(r * p.k + j);
      moved[at] = static_cast<float>(p.value(r, j, codes[at]) - p.weight(r, j));
    }
  double value = 0;
  const Status status = row_hessians.data
                            ? quadratic_form_of_heads(p.lanes.context, moved.view, p.hessian.view, row_hessians, &value)
                            : quadratic_form(p.lanes.context, moved.view, p.hessian.view, &value);
  CHECK(status.ok());
  return value;
}

}  // namespace

LUTRA_TEST(quantize, refined_scales_lower_the_two_sided_error) {
  for (const int64_t group_size : {int64_t{-1}, int64_t{16}})
    for (const bool coupled : {false, true}) {
      Problem p(12, 40, grid(2, group_size), 3);
      Operand<double> g({3, 4, 4});
      fill_row_hessians(g, 8);
      const TensorView rows = coupled ? g.view : TensorView{};
      Operand<uint8_t> codes({12, 40});
      CHECK(p.round(codes).ok());
      double error = error_of(p, codes, rows);
      const double first = error;
      for (int round = 0; round < 4; ++round) {
        CHECK(refine_scales(p.lanes.context, p.group_columns(), Dtype::kF16, p.w.view, codes.view, p.hessian.view, rows,
                            p.scales.view, p.zeros.view)
                  .ok());
        const double next = error_of(p, codes, rows);
        CHECK_LE(next, error * (1 + 1e-6));
        error = next;
      }
      CHECK_LE(error, 0.97 * first);
      for (size_t i = 0; i < p.scales.count(); ++i) CHECK(p.scales[i] == half_to_float(float_to_half(p.scales[i])));
    }
}

// One row and one group have a closed form: s = w H a / (a H a).
LUTRA_TEST(quantize, a_refined_scale_is_the_least_squares_one) {
  Problem p(1, 24, grid(3, -1), 4);
  Operand<uint8_t> codes({1, 24});
  CHECK(p.round(codes).ok());
  double along = 0, square = 0;
  for (int64_t i = 0; i < 24; ++i)
    for (int64_t j = 0; j < 24; ++j) {
      const double a = codes[static_cast<size_t>(i)] - p.zero(0, i), b = codes[static_cast<size_t>(j)] - p.zero(0, j);
      along += a * p.h(i, j) * p.weight(0, j);
      square += a * p.h(i, j) * b;
    }
  CHECK(refine_scales(p.lanes.context, 24, Dtype::kF32, p.w.view, codes.view, p.hessian.view, {}, p.scales.view,
                      p.zeros.view)
            .ok());
  CHECK_LE(std::fabs(p.scales[0] / (along / square) - 1), 1e-5);
}

LUTRA_TEST(quantize, refined_scales_do_not_depend_on_lanes) {
  Operand<float> first({600, 3});
  for (const int lane_count : {1, 5}) {
    Problem p(600, 40, grid(2, 16), 6);
    Operand<double> g({150, 4, 4});
    fill_row_hessians(g, 8);
    Operand<uint8_t> codes({600, 40});
    CHECK(p.round(codes).ok());
    Lanes lanes(lane_count);
    CHECK(refine_scales(lanes.context, 16, Dtype::kF16, p.w.view, codes.view, p.hessian.view, g.view, p.scales.view,
                        p.zeros.view)
              .ok());
    if (lane_count == 1) std::copy_n(p.scales.data(), p.scales.count(), first.data());
    CHECK(p.scales.same_bits(first));
  }
}

LUTRA_TEST(quantize, refine_scales_refuses) {
  Problem p(6, 20, grid(2, 16), 6);
  Operand<double> g({2, 4, 4}), fits({2, 3, 3});
  Operand<uint8_t> codes({6, 20}), fewer({5, 20});
  fill_row_hessians(fits, 1);
  CHECK(p.round(codes).ok());
  const auto run = [&](int64_t group_size, const TensorView& found, const TensorView& rows) {
    return refine_scales(p.lanes.context, group_size, Dtype::kF16, p.w.view, found, p.hessian.view, rows, p.scales.view,
                         p.zeros.view)
        .code;
  };
  CHECK(run(16, codes.view, fits.view) == Code::kOk);
  CHECK(run(16, codes.view, g.view) == Code::kShape);
  CHECK(run(0, codes.view, {}) == Code::kOption);
  CHECK(run(32, codes.view, {}) == Code::kShape);
  CHECK(run(16, fewer.view, {}) == Code::kShape);
  CHECK(run(16, p.w.view, {}) == Code::kDtype);
  fits[11] = INFINITY;
  CHECK(run(16, codes.view, fits.view) == Code::kNonFinite);
  p.h(3, 3) = NAN;
  CHECK(run(16, codes.view, {}) == Code::kNonFinite);
}
