#include "quantize/grid_search.h"

#include <algorithm>

#include "problem.h"
#include "quantize/storage.h"

using namespace lutra;
using namespace lutra::test;

namespace {

GridOptions options_of(int bits, int64_t group_size, bool symmetric) {
  return {bits, group_size, symmetric, false, Dtype::kF16};
}

// d H d^T of one group rounded to a grid, H the group's block.
double block_error(Problem& p, int64_t r, int64_t g, const UniformGrid& grid) {
  const int64_t begin = g * p.group_columns(), end = std::min(p.k, begin + p.group_columns());
  const double largest = largest_code(p.options.bits);
  std::vector<double> d;
  for (int64_t j = begin; j < end; ++j)
    d.push_back(grid_value(grid_code(p.weight(r, j), grid.scale, grid.zero, largest), grid.scale, grid.zero) -
                p.weight(r, j));
  double sum = 0;
  for (size_t i = 0; i < d.size(); ++i)
    for (size_t j = 0; j < d.size(); ++j)
      sum += d[i] * p.h(begin + static_cast<int64_t>(i), begin + static_cast<int64_t>(j)) * d[j];
  return sum;
}

UniformGrid grid_at(Problem& p, int64_t r, int64_t g) {
  const size_t at = static_cast<size_t>(r * p.groups + g);
  return {p.scales[at], p.zeros[at]};
}

Status to_hessian(Problem& p, int lane_count = 2) {
  Lanes lanes(lane_count);
  return fit_grid_to_hessian(lanes.context, p.options, p.w.view, p.hessian.view, p.scales.view, p.zeros.view);
}

}  // namespace

// Every grid of the search, by brute force in fp64.
LUTRA_TEST(quantize, grid_search_finds_the_grid_of_least_output_error) {
  for (const int bits : {2, 3, 4})
    for (const bool symmetric : {false, true})
      for (const int64_t group_size : {16, 32, -1}) {
        Problem p(5, 77, options_of(bits, group_size, symmetric), static_cast<uint64_t>(bits));
        double plain = 0, found = 0;
        std::vector<double> least;
        for (int64_t r = 0; r < p.rows; ++r)
          for (int64_t g = 0; g < p.groups; ++g) {
            plain += block_error(p, r, g, grid_at(p, r, g));
            double lo, hi;
            const int64_t begin = g * p.group_columns();
            range_of(p.w.data() + r * p.k + begin, std::min(p.k - begin, p.group_columns()), &lo, &hi);
            least.push_back(INFINITY);
            for (int step = 100; step > 0; --step) {
              UniformGrid grid = grid_of(p.options, lo * step / 100, hi * step / 100);
              const double zero = -lo * step / 100 / double{grid.scale};
              const double sides[] = {double{grid.zero}, std::floor(zero), std::ceil(zero)};
              for (const double side : sides) {
                if (!symmetric) grid.zero = static_cast<float>(std::clamp(side, 0.0, largest_code(bits)));
                least.back() = std::min(least.back(), block_error(p, r, g, grid));
              }
            }
          }
        CHECK(to_hessian(p).ok());
        for (int64_t r = 0; r < p.rows; ++r)
          for (int64_t g = 0; g < p.groups; ++g) {
            const UniformGrid grid = grid_at(p, r, g);
            const double error = block_error(p, r, g, grid);
            CHECK_LE(error, least[static_cast<size_t>(r * p.groups + g)] * (1 + 1e-4));
            CHECK(half_to_float(float_to_half(grid.scale)) == grid.scale);
            CHECK(grid.zero == std::floor(grid.zero) && grid.zero >= 0 && grid.zero <= largest_code(bits));
            found += error;
          }
        CHECK(found < 0.95 * plain);
      }
}

LUTRA_TEST(quantize, grid_search_ignores_the_unit_of_the_hessian_and_the_lanes) {
  Problem p(37, 96, options_of(3, 32, false), 4), scaled(37, 96, options_of(3, 32, false), 4);
  Problem one(37, 96, options_of(3, 32, false), 4);
  for (size_t i = 0; i < scaled.hessian.count(); ++i) scaled.hessian[i] *= 1024;
  CHECK(to_hessian(p, 3).ok() && to_hessian(scaled).ok() && to_hessian(one, 1).ok());
  CHECK(p.scales.same_bits(scaled.scales) && p.zeros.same_bits(scaled.zeros));
  CHECK(p.scales.same_bits(one.scales) && p.zeros.same_bits(one.zeros));
}

LUTRA_TEST(quantize, grid_search_of_a_silent_input_keeps_the_full_range) {
  Problem p(4, 40, options_of(3, 16, false), 5), searched(4, 40, options_of(3, 16, false), 5);
  for (size_t i = 0; i < searched.hessian.count(); ++i) searched.hessian[i] = 0;
  CHECK(to_hessian(searched).ok());
  CHECK(p.scales.same_bits(searched.scales) && p.zeros.same_bits(searched.zeros));
}

LUTRA_TEST(quantize, weighted_grids_lower_the_weighted_error) {
  for (const int bits : {2, 3, 4})
    for (const bool symmetric : {false, true}) {
      Problem p(6, 77, options_of(bits, 32, symmetric), 6);
      Operand<double> importance({p.k});
      for (int64_t j = 0; j < p.k; ++j) importance[static_cast<size_t>(j)] = j % 7 ? 0.01 : 40;
      const auto errors = [&] {
        std::vector<double> sums;
        for (int64_t r = 0; r < p.rows; ++r)
          for (int64_t j = 0; j < p.k; ++j) {
            if (j % 32 == 0) sums.push_back(0);
            const UniformGrid grid = grid_at(p, r, j / 32);
            const double code = grid_code(p.weight(r, j), grid.scale, grid.zero, largest_code(bits));
            const double d = p.weight(r, j) - grid_value(code, grid.scale, grid.zero);
            sums.back() += importance[static_cast<size_t>(j)] * d * d;
          }
        return sums;
      };
      const std::vector<double> plain = errors();
      CHECK(fit_grid_weighted(p.lanes.context, p.options, p.w.view, importance.view, p.scales.view, p.zeros.view).ok());
      const std::vector<double> found = errors();
      double before = 0, after = 0;
      for (size_t i = 0; i < plain.size(); ++i) {
        CHECK_LE(found[i], plain[i] * (1 + 1e-12));
        before += plain[i];
        after += found[i];
      }
      CHECK(after < 0.7 * before);
    }
}

LUTRA_TEST(quantize, grid_search_refuses) {
  Problem p(3, 40, options_of(3, 16, false), 7);
  Operand<double> importance({40}), fewer({39}), square({39, 40});
  for (size_t j = 0; j < 40; ++j) importance[j] = 1;
  Context& c = p.lanes.context;
  const auto weighted = [&](const TensorView& weights) {
    return fit_grid_weighted(c, p.options, p.w.view, weights, p.scales.view, p.zeros.view).code;
  };
  CHECK(weighted(importance.view) == Code::kOk);
  CHECK(weighted(fewer.view) == Code::kShape);
  CHECK(weighted(p.scales.view) == Code::kShape);
  importance[3] = -1;
  CHECK(weighted(importance.view) == Code::kNonFinite);
  CHECK(fit_grid_to_hessian(c, p.options, p.w.view, square.view, p.scales.view, p.zeros.view).code == Code::kShape);
  CHECK(fit_grid_to_hessian(c, p.options, p.w.view, p.w.view, p.scales.view, p.zeros.view).code == Code::kDtype);
  p.hessian[5] = NAN;
  CHECK(to_hessian(p).code == Code::kNonFinite);
  p.hessian[5] = 0;
  for (size_t j = 0; j < 16; ++j) p.w[j] *= 1e8f;
  CHECK(to_hessian(p).code == Code::kOption);
  p.w[2] = NAN;
  CHECK(to_hessian(p).code == Code::kNonFinite);
}
