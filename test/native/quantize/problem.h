// A random layer for the solvers: weights, a damped Hessian of correlated inputs, a grid.
#pragma once

#include "../operands.h"
#include "quantize/gptq.h"
#include "quantize/grid.h"
#include "quantize/levels.h"
#include "quantize/rtn.h"

namespace lutra::test {

struct Problem {
  int64_t rows;
  int64_t k;
  GridOptions options;
  int64_t groups;
  Operand<float> w;
  Operand<double> hessian;
  Operand<float> scales;
  Operand<float> zeros;
  Operand<float> levels;
  Operand<int32_t> group_of;
  Lanes lanes{2};

  Problem(int64_t rows_, int64_t k_, const GridOptions& options_, uint64_t seed)
      : rows(rows_),
        k(k_),
        options(options_),
        groups(options.group_size == -1 ? 1 : (k + options.group_size - 1) / options.group_size),
        w({rows, k}),
        hessian({k, k}),
        scales({rows, groups}),
        zeros({rows, groups}),
        levels({rows, groups, int64_t{1} << options.bits}),
        group_of({k}) {
    fill(w, Distribution::kNormal, seed);
    // Inputs with a common component make columns interact strongly.
    const int64_t tokens = 2 * k;
    std::mt19937_64 random(seed + 1);
    std::normal_distribution<double> normal;
    std::vector<double> x(static_cast<size_t>(tokens * k));
    for (int64_t t = 0; t < tokens; ++t) {
      const double shared = normal(random);
      for (int64_t j = 0; j < k; ++j) x[static_cast<size_t>(t * k + j)] = normal(random) + 0.7 * shared;
    }
    double trace = 0;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < tokens; ++t)
          sum += x[static_cast<size_t>(t * k + i)] * x[static_cast<size_t>(t * k + j)];
        h(i, j) = sum;
        if (i == j) trace += sum;
      }
    for (int64_t i = 0; i < k; ++i) h(i, i) += 0.01 * trace / static_cast<double>(k);
    fit();
  }

  void fit() {
    CHECK(fit_grid(lanes.context, options, w.view, scales.view, zeros.view, nullptr).ok());
    level();
    for (int64_t j = 0; j < k; ++j)
      group_of[static_cast<size_t>(j)] = options.group_size == -1 ? 0 : static_cast<int32_t>(j / options.group_size);
  }

  void level() { CHECK(levels_of(lanes.context, LevelKind::kZeroCode, scales.view, zeros.view, levels.view).ok()); }
  int64_t group_columns() const { return options.group_size == -1 ? k : options.group_size; }

  double& h(int64_t i, int64_t j) { return hessian[static_cast<size_t>(i * k + j)]; }
  double weight(int64_t r, int64_t j) { return w[static_cast<size_t>(r * k + j)]; }
  double scale(int64_t r, int64_t j) {
    return scales[static_cast<size_t>(r * groups + group_of[static_cast<size_t>(j)])];
  }
  double zero(int64_t r, int64_t j) {
    return zeros[static_cast<size_t>(r * groups + group_of[static_cast<size_t>(j)])];
  }
  double value(int64_t r, int64_t j, uint8_t code) { return grid_value(code, scale(r, j), zero(r, j)); }

  // (Q - W) H (Q - W)^T of one row.
  double loss(int64_t r, Operand<uint8_t>& codes) {
    std::vector<double> d(static_cast<size_t>(k));
    for (int64_t j = 0; j < k; ++j)
      d[static_cast<size_t>(j)] = value(r, j, codes[static_cast<size_t>(r * k + j)]) - weight(r, j);
    double sum = 0;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) sum += d[static_cast<size_t>(i)] * h(i, j) * d[static_cast<size_t>(j)];
    return sum;
  }

  // Runs the production pass on a copy of the Hessian.
  Status solve(Operand<uint8_t>& codes, Operand<double>& row_loss, double factor = 1.0, int lane_count = 2) {
    Lanes own(lane_count);
    Operand<double> m({k, k});
    for (size_t i = 0; i < m.count(); ++i) m[i] = factor * hessian[i];
    LUTRA_TRY(reverse_cholesky(own.context, m.view));
    return gptq_pass(own.context, w.view, m.view, levels.view, group_of.view, codes.view, row_loss.view);
  }
  Status round(Operand<uint8_t>& codes) {
    return round_to_levels(lanes.context, group_columns(), w.view, levels.view, codes.view);
  }
};

}  // namespace lutra::test
