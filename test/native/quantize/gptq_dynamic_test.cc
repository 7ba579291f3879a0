#include "core/checked.h"
#include "problem.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// What the pass with dynamic groups makes of a layer.
struct Dynamic {
  Problem p;
  Operand<float> scales, zeros;
  Operand<uint8_t> codes;
  Operand<double> loss, m;

  Dynamic(int64_t rows, int64_t k, const GridOptions& options, uint64_t seed)
      : p(rows, k, options, seed),
        scales({rows, p.groups}),
        zeros({rows, p.groups}),
        codes({rows, k}),
        loss({rows}),
        m({k, k}) {}

  Status run(int lane_count = 2) {
    Lanes own(lane_count);
    std::copy(p.hessian.data(), p.hessian.data() + p.hessian.count(), m.data());
    LUTRA_TRY(reverse_cholesky(own.context, m.view));
    return pass(own.context);
  }
  Status pass(Context& context) {
    return gptq_dynamic_pass(context, p.options, p.w.view, m.view, scales.view, zeros.view, codes.view, loss.view);
  }
  // Makes the problem's own grid the one that was found.
  void take_grid() {
    std::copy(scales.data(), scales.data() + scales.count(), p.scales.data());
    std::copy(zeros.data(), zeros.data() + zeros.count(), p.zeros.data());
    p.level();
  }
};

GridOptions grid(int bits, int64_t group_size, bool symmetric = false) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  options.symmetric = symmetric;
  options.scale_dtype = Dtype::kF32;
  return options;
}

// What all columns from `from` on become where the errors of those before are given and nothing else is: the solution
// of the normal equations H_rest d_rest = -H_rest,before e_before, by elimination.
std::vector<double> best_rest(Problem& p, int64_t r, const std::vector<double>& before) {
  const int64_t from = static_cast<int64_t>(before.size()), n = p.k - from;
  std::vector<double> a(static_cast<size_t>(n * (n + 1)));
  const auto at = [&](int64_t i, int64_t j) -> double& { return a[static_cast<size_t>(i * (n + 1) + j)]; };
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) at(i, j) = p.h(from + i, from + j);
    for (int64_t j = 0; j < from; ++j) at(i, n) -= p.h(from + i, j) * before[static_cast<size_t>(j)];
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t l = i + 1; l < n; ++l) {
      const double factor = at(l, i) / at(i, i);
      for (int64_t j = i; j <= n; ++j) at(l, j) -= factor * at(i, j);
    }
  std::vector<double> values(static_cast<size_t>(n));
  for (int64_t i = n - 1; i >= 0; --i) {
    double sum = at(i, n);
    for (int64_t j = i + 1; j < n; ++j) sum -= at(i, j) * values[static_cast<size_t>(j)];
    values[static_cast<size_t>(i)] = sum / at(i, i);
  }
  for (int64_t j = 0; j < n; ++j)
    values[static_cast<size_t>(j)] = p.weight(r, from + j) - values[static_cast<size_t>(j)];
  return values;
}

struct Shape {
  int64_t k, group_size;
};
std::vector<Shape> shapes() {
  if (quick()) return {{70, 32}, {170, 160}};
  return {{40, 16}, {70, 32}, {100, 96}, {130, 128}, {170, 160}, {290, 16}, {200, 48}};
}

}  // namespace

// Every group's grid is that of fit_grid on the weights that are best when the pass enters the group.
LUTRA_TEST(gptq_dynamic, grids_are_those_of_the_compensated_weights) {
  for (const Shape& s : shapes())
    for (const bool symmetric : {false, true}) {
      Dynamic d(3, s.k, grid(3, s.group_size, symmetric), static_cast<uint64_t>(s.k));
      CHECK(d.run().ok());
      d.take_grid();
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t g = 0; g < d.p.groups; ++g) {
          std::vector<double> before;
          for (int64_t j = 0; j < g * s.group_size; ++j)
            before.push_back(d.p.weight(r, j) - d.p.value(r, j, d.codes[static_cast<size_t>(r * s.k + j)]));
          const std::vector<double> rest = best_rest(d.p, r, before);
          double lo = 0, hi = 0;
          for (int64_t j = 0; j < std::min(s.group_size, s.k - g * s.group_size); ++j) {
            lo = std::min(lo, rest[static_cast<size_t>(j)]);
            hi = std::max(hi, rest[static_cast<size_t>(j)]);
          }
          const UniformGrid expected = grid_of(d.p.options, lo, hi);
          const size_t at = static_cast<size_t>(r * d.p.groups + g);
          CHECK_LE(std::fabs(expected.scale - d.scales[at]), 2e-5 * expected.scale);
          if (symmetric) CHECK(expected.zero == d.zeros[at]);
        }
    }
}

// Codes are those of the pass with these grids given.
LUTRA_TEST(gptq_dynamic, codes_and_loss_are_those_of_the_pass_on_its_grids) {
  for (const Shape& s : shapes()) {
    Dynamic d(5, s.k, grid(2, s.group_size), 3);
    CHECK(d.run().ok());
    d.take_grid();
    Operand<uint8_t> codes({5, s.k});
    Operand<double> loss({5});
    CHECK(d.p.solve(codes, loss).ok());
    int64_t same = 0;
    for (int64_t r = 0; r < 5; ++r) {
      // Blocks are cut elsewhere: a decision within rounding of a tie may fall the other way, and all behind it moves.
      same += !std::memcmp(codes.data() + r * s.k, d.codes.data() + r * s.k, static_cast<size_t>(s.k));
      const double form = d.p.loss(r, d.codes);
      CHECK_LE(std::fabs(form - d.loss[static_cast<size_t>(r)]), 1e-5 * form);
    }
    CHECK(same >= 4);
  }
}

LUTRA_TEST(gptq_dynamic, one_group_is_static) {
  for (const int64_t k : {1, 40, 300}) {
    Dynamic d(4, k, grid(3, -1), 5);
    CHECK(d.run().ok());
    Operand<uint8_t> codes({4, k});
    Operand<double> loss({4});
    CHECK(d.p.solve(codes, loss).ok());
    CHECK(d.codes.same_bits(codes) && d.scales.same_bits(d.p.scales) && d.zeros.same_bits(d.p.zeros));
    CHECK(d.loss.same_bits(loss));
  }
}

LUTRA_TEST(gptq_dynamic, a_group_beyond_the_row_is_the_row) {
  for (const int64_t k : {40, 300}) {
    Dynamic row(4, k, grid(3, -1), 5), wide(4, k, grid(3, -1), 5);
    // Rows times columns of a group would not fit a number.
    wide.p.options.group_size = (int64_t{1} << 62) + 1;
    CHECK(row.run().ok() && wide.run().ok());
    CHECK(row.codes.same_bits(wide.codes) && row.scales.same_bits(wide.scales));
  }
}

LUTRA_TEST(gptq_dynamic, with_a_plain_metric_rounds_on_static_grids) {
  Dynamic d(5, 150, grid(4, 32, true), 9);
  for (int64_t i = 0; i < d.p.k; ++i)
    for (int64_t j = 0; j < d.p.k; ++j) d.p.h(i, j) = i == j ? 3.5 : 0.0;
  CHECK(d.run().ok());
  Operand<uint8_t> rounded({5, 150});
  CHECK(d.p.round(rounded).ok());
  CHECK(d.codes.same_bits(rounded) && d.scales.same_bits(d.p.scales));
}

LUTRA_TEST(gptq_dynamic, ignores_the_unit_of_the_hessian_and_the_lanes) {
  for (const int64_t group_size : {32, 160}) {
    Dynamic one(37, 200, grid(3, group_size), 4), three(37, 200, grid(3, group_size), 4),
        scaled(37, 200, grid(3, group_size), 4);
    for (size_t i = 0; i < scaled.p.hessian.count(); ++i) scaled.p.hessian[i] *= 4;
    CHECK(one.run(1).ok() && three.run(3).ok() && scaled.run().ok());
    CHECK(one.codes.same_bits(three.codes) && one.scales.same_bits(three.scales) && one.loss.same_bits(three.loss));
    CHECK(one.codes.same_bits(scaled.codes) && one.scales.same_bits(scaled.scales));
  }
}

LUTRA_TEST(gptq_dynamic, refuses) {
  Dynamic d(3, 20, grid(4, 8), 4);
  CHECK(d.run().ok());
  Context& context = d.p.lanes.context;
  d.m[21] = 0;
  CHECK(d.pass(context).code == Code::kNotPositiveDefinite);
  d.m[21] = 1;
  d.p.w[5] = NAN;
  const Status status = d.pass(context);
  CHECK(status.code == Code::kNonFinite && status.found == 5);
  d.p.w[5] = 0;
  d.p.options.group_size = 16;
  CHECK(d.pass(context).code == Code::kShape);
  d.p.options.group_size = 8;
  CHECK(gptq_dynamic_pass(context, d.p.options, d.p.w.view, d.p.w.view, d.scales.view, d.zeros.view, d.codes.view,
                          d.loss.view)
            .code == Code::kDtype);
  CHECK(gptq_dynamic_pass(context, d.p.options, d.p.w.view, d.m.view, d.scales.view, d.zeros.view, d.codes.view,
                          d.scales.view)
            .code == Code::kShape);
  // Row 0 of the factor meets an error that is not zero, and a later column divides by next to nothing.
  d.m[7] = 1e300;
  CHECK(d.pass(context).code == Code::kNonFinite);
}
