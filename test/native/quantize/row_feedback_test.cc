#include "quantize/row_feedback.h"

#include <algorithm>

#include "problem.h"
#include "quantize/head_quadratic_form.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// Heads of d rows each, rows of a head after each other, and a row Hessian a head.
struct Heads {
  int64_t heads;
  int64_t d;
  Problem p;
  Operand<double> row_hessians;

  Heads(int64_t heads_, int64_t d_, int64_t k, const GridOptions& options, uint64_t seed)
      : heads(heads_), d(d_), p(heads_ * d_, k, options, seed), row_hessians({heads, d, d}) {
    const int64_t tokens = 2 * d;
    std::mt19937_64 random(seed + 77);
    std::normal_distribution<double> normal;
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> x(static_cast<size_t>(tokens * d));
      for (int64_t t = 0; t < tokens; ++t) {
        const double shared = normal(random);
        for (int64_t i = 0; i < d; ++i) x[static_cast<size_t>(t * d + i)] = normal(random) + shared;
      }
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; ++j) {
          double sum = i == j ? 0.1 : 0.0;
          for (int64_t t = 0; t < tokens; ++t)
            sum += x[static_cast<size_t>(t * d + i)] * x[static_cast<size_t>(t * d + j)];
          g(h, i, j) = sum;
        }
    }
  }
  double& g(int64_t h, int64_t i, int64_t j) { return row_hessians[static_cast<size_t>((h * d + i) * d + j)]; }

  // Codes [heads d, k] in blocks of n rows; losses, where given, of every row as gptq_pass has them.
  void solve(int64_t n, Operand<uint8_t>& codes, std::vector<double>* losses = nullptr, int lane_count = 2) {
    Lanes own(lane_count);
    Context& context = own.context;
    const int64_t k = p.k, count = int64_t{1} << p.options.bits;
    Operand<double> m({k, k}), factors({heads, d, d}), loss({n * heads});
    std::copy(p.hessian.data(), p.hessian.data() + p.hessian.count(), m.data());
    std::copy(row_hessians.data(), row_hessians.data() + row_hessians.count(), factors.data());
    CHECK(reverse_cholesky(context, m.view).ok());
    for (int64_t h = 0; h < heads; ++h)
      CHECK(reverse_cholesky(context, TensorView{factors.data() + h * d * d, Dtype::kF64, 2, {d, d}}).ok());
    Operand<int32_t> index({heads * d});
    for (int64_t r = 0; r < d; ++r)
      for (int64_t h = 0; h < heads; ++h) index[static_cast<size_t>(r * heads + h)] = static_cast<int32_t>(h * d + r);
    Operand<float> w({d, heads, k}), errors({d, heads, k});
    Operand<float> levels({d * heads, p.groups, count});
    const auto flat = [](auto& operand, int64_t rows, int64_t cols) {
      TensorView view = operand.view;
      view.rank = 2;
      view.shape[0] = rows;
      view.shape[1] = cols;
      return view;
    };
    CHECK(gather_rows(context, p.w.view, index.view, flat(w, heads * d, k)).ok());
    CHECK(gather_rows(context, flat(p.levels, heads * d, p.groups * count), index.view,
                      flat(levels, heads * d, p.groups * count))
              .ok());
    if (losses) losses->assign(static_cast<size_t>(heads * d), 0.0);
    for (int64_t first = 0; first < d; first += n) {
      const int64_t rows = std::min(n, d - first);
      Operand<float> block({rows, heads, k});
      Operand<uint8_t> found({rows * heads, k});
      Operand<double> row_loss({rows * heads});
      CHECK(compensate_rows(context, w.view, errors.view, factors.view, first, block.view).ok());
      const TensorView block_levels{
          levels.data() + first * heads * p.groups * count, Dtype::kF32, 3, {rows * heads, p.groups, count}};
      CHECK(gptq_pass(context, flat(block, rows * heads, k), m.view, block_levels, p.group_of.view, found.view,
                      row_loss.view)
                .ok());
      for (int64_t i = 0; i < rows * heads; ++i) {
        const int64_t row = index[static_cast<size_t>(first * heads + i)];
        if (losses) {
          const double pivot = factors[static_cast<size_t>(row * d + row % d)];
          (*losses)[static_cast<size_t>(row)] = row_loss[static_cast<size_t>(i)] * pivot * pivot;
        }
        for (int64_t j = 0; j < k; ++j) {
          const uint8_t code = found[static_cast<size_t>(i * k + j)];
          codes[static_cast<size_t>(row * k + j)] = code;
          errors[static_cast<size_t>((first * heads + i) * k + j)] =
              static_cast<float>(p.weight(row, j) - p.value(row, j, code));
        }
      }
    }
  }

  // The sum over heads of tr(G D H D^T).
  double error(Operand<uint8_t>& codes) {
    Operand<float> moved({heads * d, p.k});
    for (int64_t r = 0; r < heads * d; ++r)
      for (int64_t j = 0; j < p.k; ++j)
        moved[static_cast<size_t>(r * p.k + j)] =
            static_cast<float>(p.value(r, j, codes[static_cast<size_t>(r * p.k + j)]) - p.weight(r, j));
    double value = 0;
    CHECK(quadratic_form_of_heads(p.lanes.context, moved.view, p.hessian.view, row_hessians.view, &value).ok());
    return value;
  }
};

GridOptions grid(int bits, int64_t group_size = -1) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  return options;
}

}  // namespace

LUTRA_TEST(quantize, rows_that_are_not_coupled_are_those_of_the_column_pass) {
  for (const auto& [heads, d, k] : {std::tuple<int64_t, int64_t, int64_t>{3, 5, 150}, {1, 7, 33}, {4, 1, 8}}) {
    Heads problem(heads, d, k, grid(3, 16), static_cast<uint64_t>(k));
    Operand<uint8_t> plain({heads * d, k}), codes({heads * d, k});
    Operand<double> loss({heads * d});
    CHECK(problem.p.solve(plain, loss).ok());
    // One block of all rows has nobody to take errors from.
    problem.solve(d, codes);
    CHECK(codes.same_bits(plain));
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; ++j)
          problem.g(h, i, j) = i == j ? 0.25 + static_cast<double>((h * 5 + i * 3) % 7) : 0.0;
    for (const int64_t n : {int64_t{1}, int64_t{2}, d}) {
      problem.solve(n, codes);
      CHECK(codes.same_bits(plain));
    }
  }
}

// Row-major vec(W) has the Hessian G (x) H: the column pass over all d k weights of a head at once.
LUTRA_TEST(quantize, row_feedback_is_the_pass_on_the_kronecker_product) {
  const int64_t d = 6, k = 20;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    Heads problem(1, d, k, grid(2 + static_cast<int>(seed % 3), seed % 2 ? 16 : -1), seed);
    Operand<uint8_t> codes({d, k});
    problem.solve(1, codes);
    const int64_t groups = problem.p.groups, n = d * k;
    Operand<float> w({1, n}), levels({1, d * groups, problem.p.levels.view.shape[2]});
    Operand<double> m({n, n}), loss({1});
    Operand<int32_t> group_of({n});
    Operand<uint8_t> dense({1, n});
    std::copy(problem.p.w.data(), problem.p.w.data() + n, w.data());
    std::copy(problem.p.levels.data(), problem.p.levels.data() + problem.p.levels.count(), levels.data());
    for (int64_t i = 0; i < n; ++i) {
      group_of[static_cast<size_t>(i)] =
          static_cast<int32_t>(i / k * groups + problem.p.group_of[static_cast<size_t>(i % k)]);
      for (int64_t j = 0; j < n; ++j)
        m[static_cast<size_t>(i * n + j)] = problem.g(0, i / k, j / k) * problem.p.h(i % k, j % k);
    }
    CHECK(reverse_cholesky(problem.p.lanes.context, m.view).ok());
    CHECK(gptq_pass(problem.p.lanes.context, w.view, m.view, levels.view, group_of.view, dense.view, loss.view).ok());
    CHECK(!std::memcmp(dense.data(), codes.data(), static_cast<size_t>(n)));
    CHECK_LE(std::fabs(problem.error(codes) / loss[0] - 1), 1e-4);
  }
}

LUTRA_TEST(quantize, losses_of_rows_add_up_to_the_two_sided_error) {
  Heads problem(3, 8, 40, grid(3), 5);
  Operand<uint8_t> codes({24, 40});
  std::vector<double> losses;
  problem.solve(1, codes, &losses);
  double sum = 0;
  for (const double loss : losses) sum += loss;
  CHECK_LE(std::fabs(problem.error(codes) / sum - 1), 1e-4);
}

LUTRA_TEST(quantize, row_feedback_makes_the_two_sided_error_smaller) {
  const int seeds = quick() ? 30 : 100;
  for (const int64_t n : {1, 4}) {
    int better = 0;
    double ratio = 0;
    for (int seed = 0; seed < seeds; ++seed) {
      Heads problem(1, 8, 24, grid(3), static_cast<uint64_t>(seed));
      Operand<uint8_t> plain({8, 24}), codes({8, 24});
      problem.solve(8, plain);
      problem.solve(n, codes);
      const double relative = problem.error(codes) / problem.error(plain);
      better += relative < 1;
      ratio += relative / seeds;
    }
    CHECK(better >= 8 * seeds / 10);
    CHECK_LE(ratio, 0.95);
  }
}

LUTRA_TEST(quantize, row_feedback_does_not_depend_on_lanes_or_on_the_order_of_heads) {
  Heads problem(5, 6, 64, grid(2, 32), 9);
  Operand<uint8_t> one({30, 64}), many({30, 64}), turned({30, 64});
  problem.solve(2, one, nullptr, 1);
  problem.solve(2, many, nullptr, 7);
  CHECK(one.same_bits(many));
  // Heads rotated by one: weights, levels and row Hessians move with them.
  Heads other(5, 6, 64, grid(2, 32), 9);
  for (int64_t h = 0; h < 5; ++h) {
    const int64_t from = (h + 1) % 5;
    std::copy_n(problem.p.w.data() + from * 6 * 64, 6 * 64, other.p.w.data() + h * 6 * 64);
    std::copy_n(problem.row_hessians.data() + from * 36, 36, other.row_hessians.data() + h * 36);
  }
  other.p.fit();
  other.solve(2, turned);
  for (int64_t h = 0; h < 5; ++h)
    CHECK(!std::memcmp(turned.data() + h * 6 * 64, one.data() + (h + 1) % 5 * 6 * 64, 6 * 64));
}

LUTRA_TEST(quantize, quadratic_form_of_heads_is_the_two_sided_trace) {
  Lanes lanes(2);
  for (const auto& [heads, d, k] : {std::tuple<int64_t, int64_t, int64_t>{2, 3, 19}, {1, 1, 1}, {3, 5, 300}}) {
    Heads problem(heads, d, k, grid(4), 3);
    double expected = 0;
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t r = 0; r < d; ++r)
        for (int64_t s = 0; s < d; ++s) {
          double form = 0;
          for (int64_t i = 0; i < k; ++i)
            for (int64_t j = 0; j < k; ++j)
              form += problem.p.weight(h * d + r, i) * problem.p.h(i, j) * problem.p.weight(h * d + s, j);
          expected += problem.g(h, r, s) * form;
        }
    double value = 0;
    CHECK(quadratic_form_of_heads(lanes.context, problem.p.w.view, problem.p.hessian.view, problem.row_hessians.view,
                                  &value)
              .ok());
    CHECK_LE(std::fabs(value - expected), 1e-4 * expected);
  }
}

LUTRA_TEST(quantize, row_feedback_refuses) {
  Lanes lanes(1);
  Context& c = lanes.context;
  Operand<float> w({4, 2, 8}), errors({4, 2, 8}), block({2, 2, 8}), narrow({2, 2, 7}), tall({5, 2, 8});
  Operand<double> factors({2, 4, 4}), other({3, 4, 4});
  for (size_t i = 0; i < 32; ++i) factors[i] = i % 5 == 0 || i % 16 % 5 == 0 ? 1.0 : 0.0;
  std::fill_n(w.data(), 64, 0.0f);
  std::fill_n(errors.data(), 64, 0.0f);
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, 2, block.view).ok());
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, 3, block.view).code == Code::kOption);
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, -1, block.view).code == Code::kOption);
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, 0, tall.view).code == Code::kOption);
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, 0, narrow.view).code == Code::kShape);
  CHECK(compensate_rows(c, w.view, errors.view, other.view, 0, block.view).code == Code::kShape);
  CHECK(compensate_rows(c, w.view, errors.view, w.view, 0, block.view).code == Code::kDtype);
  CHECK(compensate_rows(c, w.view, block.view, factors.view, 0, block.view).code == Code::kShape);
  CHECK(compensate_rows(c, w.view, w.view, factors.view, 0, w.view).code == Code::kOption);
  factors[5] = 0;
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, 0, block.view).code == Code::kNotPositiveDefinite);
  Operand<int32_t> index({2});
  Operand<uint8_t> bytes({2, 8});
  Operand<float> some({2, 8}), all({4, 8});
  index[0] = 3;
  index[1] = 0;
  CHECK(gather_rows(c, all.view, index.view, some.view).ok());
  CHECK(gather_rows(c, all.view, index.view, bytes.view).code == Code::kDtype);
  CHECK(gather_rows(c, all.view, all.view, some.view).code == Code::kDtype);
  CHECK(gather_rows(c, some.view, index.view, some.view).code == Code::kOption);
  index[1] = 4;
  CHECK(gather_rows(c, all.view, index.view, some.view).code == Code::kOption);
  CancelToken token;
  token.cancel();
  c.cancel = &token;
  factors[5] = 1;
  CHECK(compensate_rows(c, w.view, errors.view, factors.view, 2, block.view).code == Code::kCancelled);
}
