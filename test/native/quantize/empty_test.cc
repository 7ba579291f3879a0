// Matrices without rows, without columns and without either: every entry point of the solvers takes them or refuses
// them, and neither divides by nor reads what is not there.
#include "../operands.h"
#include "quantize/bcq.h"
#include "quantize/column_order.h"
#include "quantize/decoupleq.h"
#include "quantize/gptq.h"
#include "quantize/grid_search.h"
#include "quantize/hqq.h"
#include "quantize/levels.h"
#include "quantize/magnitude.h"
#include "quantize/quadratic_form.h"
#include "quantize/rtn.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr int kBits = 3;

// Operands of an m x k matrix with at least one size of zero, in groups of 16 columns.
struct Empty {
  int64_t rows;
  int64_t k;
  int64_t groups = (k + 15) / 16;
  Lanes lanes{2};
  Context& context = lanes.context;
  Operand<float> w{rows, k};
  Operand<double> hessian{k, k};
  Operand<double> importance{k};
  Operand<float> scales{rows, groups};
  Operand<float> zeros{rows, groups};
  Operand<float> alphas{rows, groups, kBits};
  Operand<float> levels{rows, groups, int64_t{1} << kBits};
  Operand<uint8_t> codes{rows, k};

  Empty(int64_t rows_, int64_t k_) : rows(rows_), k(k_) {
    for (int64_t i = 0; i < k * k; ++i) hessian[static_cast<size_t>(i)] = i % (k + 1) == 0 ? 1.0 : 0.0;
    for (int64_t i = 0; i < k; ++i) importance[static_cast<size_t>(i)] = 1.0;
  }
};

template <typename Body>
void each_empty(Body&& body) {
  for (const auto& [rows, k] : {std::pair<int64_t, int64_t>{0, 0}, {3, 0}, {0, 40}}) {
    Empty empty(rows, k);
    body(empty);
  }
}

}  // namespace

LUTRA_TEST(quantize, grids_of_empty_matrices) {
  each_empty([](Empty& e) {
    for (const bool symmetric : {false, true})
      for (const int64_t group_size : {int64_t{16}, int64_t{-1}}) {
        if (group_size == -1 && e.groups > 1) continue;  // scales have a column for each group of 16
        const GridOptions options{kBits, group_size, symmetric, true, Dtype::kF16};
        int64_t subnormal = -1;
        CHECK(fit_grid(e.context, options, e.w.view, e.scales.view, e.zeros.view, &subnormal).ok());
        CHECK(subnormal == 0);
        CHECK(fit_grid_to_hessian(e.context, options, e.w.view, e.hessian.view, e.scales.view, e.zeros.view).ok());
        CHECK(fit_grid_weighted(e.context, options, e.w.view, e.importance.view, e.scales.view, e.zeros.view).ok());
      }
    HqqOptions hqq;
    hqq.bits = kBits;
    hqq.group_size = 16;
    hqq.iterations = 5;
    CHECK(hqq_fit(e.context, hqq, e.w.view, e.scales.view, e.zeros.view).ok());
  });
}

LUTRA_TEST(quantize, planes_of_empty_matrices) {
  each_empty([](Empty& e) {
    for (const bool centred : {false, true}) {
      BcqOptions options;
      options.bits = kBits;
      options.group_size = 16;
      options.centred = centred;
      options.rounds = 5;
      CHECK(bcq_fit(e.context, options, e.w.view, e.importance.view, e.alphas.view, e.zeros.view).ok());
      const BcqRefit refit{16, centred, 0.01, Dtype::kF16};
      CHECK(bcq_refit(e.context, refit, e.w.view, e.hessian.view, e.codes.view, e.alphas.view, e.zeros.view).ok());
    }
    CHECK(grid_planes(e.context, e.scales.view, e.zeros.view, e.alphas.view, e.zeros.view).ok());
  });
}

LUTRA_TEST(quantize, levels_of_empty_matrices) {
  each_empty([](Empty& e) {
    for (const LevelKind kind : {LevelKind::kZeroCode, LevelKind::kRealOffset})
      CHECK(levels_of(e.context, kind, e.scales.view, e.zeros.view, e.levels.view).ok());
    for (const LevelKind kind : {LevelKind::kPlanes, LevelKind::kCentredPlanes})
      CHECK(levels_of(e.context, kind, e.alphas.view, e.zeros.view, e.levels.view).ok());
    CHECK(round_to_levels(e.context, 16, e.w.view, e.levels.view, e.codes.view).ok());
    CHECK(residual(e.context, e.w.view, e.codes.view, e.levels.view, 16, e.w.view).ok());
  });
}

LUTRA_TEST(quantize, column_pass_of_empty_matrices) {
  each_empty([](Empty& e) {
    Operand<int32_t> group_of({e.k});
    for (int64_t j = 0; j < e.k; ++j) group_of[static_cast<size_t>(j)] = static_cast<int32_t>(j / 16);
    Operand<double> loss({e.rows});
    CHECK(reverse_cholesky(e.context, e.hessian.view).ok());
    const GridOptions grid{kBits, 16, false, false, Dtype::kF16};
    CHECK(gptq_dynamic_pass(e.context, grid, e.w.view, e.hessian.view, e.scales.view, e.zeros.view, e.codes.view,
                            loss.view)
              .ok());
    CHECK(gptq_pass(e.context, e.w.view, e.hessian.view, e.levels.view, group_of.view, e.codes.view, loss.view).ok());
  });
}

// A Hessian without columns is refused, by name; what is measured of an empty matrix is zero.
LUTRA_TEST(quantize, orders_and_measures_of_empty_matrices) {
  each_empty([](Empty& e) {
    Operand<int32_t> order({e.k});
    for (int64_t j = 0; j < e.k; ++j) order[static_cast<size_t>(j)] = static_cast<int32_t>(j);
    Operand<double> prepared({e.k, e.k}), diagonal({e.k});
    const Code expected = e.k > 0 ? Code::kOk : Code::kShape;
    CHECK(hessian_diagonal(e.context, e.hessian.view, diagonal.view).code == expected);
    CHECK(prepare_hessian(e.context, e.hessian.view, order.view, 0.5, prepared.view).code == expected);
    Operand<float> gathered({e.rows, e.k});
    CHECK(gather_columns(e.context, e.w.view, order.view, gathered.view).ok());
    double value = -1.0;
    CHECK(largest_magnitude(e.context, e.w.view, &value).ok() && value == 0.0);
    value = -1.0;
    CHECK(sum_of_squares(e.context, e.w.view, &value).ok() && value == 0.0);
    value = -1.0;
    CHECK(quadratic_form(e.context, e.w.view, e.hessian.view, &value).ok() && value == 0.0);
  });
}

LUTRA_TEST(quantize, decoupleq_of_empty_matrices) {
  each_empty([](Empty& e) {
    const DampedHessian metric{e.hessian.view, e.importance.view};
    Operand<double> pulled({e.rows, e.k}), errors({e.rows});
    CHECK(decoupleq_pull(e.context, metric, e.w.view, pulled.view).ok());
    const CodedRows rows{e.codes.view, e.scales.view, e.zeros.view, errors.view};
    for (const bool symmetric : {false, true}) {
      const GridOptions grid{kBits, 16, symmetric, false, Dtype::kF16};
      CHECK(decoupleq_search(e.context, grid, metric, e.w.view, e.scales.view, e.zeros.view).ok());
      const ScaleFit fit{kBits, 16, symmetric, Dtype::kF16};
      CHECK(decoupleq_fit(e.context, fit, metric, e.w.view, pulled.view, rows).ok());
    }
    int64_t taken = -1;
    CHECK(take_better_rows(e.context, rows, rows, &taken).ok());
    CHECK(taken == 0);
  });
}
