#include "quantize/gptq.h"

#include "problem.h"

using namespace lutra;
using namespace lutra::test;

namespace {

using Matrix = std::vector<double>;

// Lower L with a = L L^T.
Matrix plain_cholesky(const Matrix& a, int64_t n) {
  Matrix l(a.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = a[static_cast<size_t>(i * n + j)];
      for (int64_t k = 0; k < j; ++k) sum -= l[static_cast<size_t>(i * n + k)] * l[static_cast<size_t>(j * n + k)];
      l[static_cast<size_t>(i * n + j)] = i == j ? std::sqrt(sum) : sum / l[static_cast<size_t>(j * n + j)];
    }
  return l;
}

// The inverse of L L^T, column by column.
Matrix inverse_of(const Matrix& l, int64_t n) {
  Matrix inverse(l.size());
  for (int64_t c = 0; c < n; ++c) {
    std::vector<double> y(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      double sum = i == c ? 1.0 : 0.0;
      for (int64_t k = 0; k < i; ++k) sum -= l[static_cast<size_t>(i * n + k)] * y[static_cast<size_t>(k)];
      y[static_cast<size_t>(i)] = sum / l[static_cast<size_t>(i * n + i)];
    }
    for (int64_t i = n - 1; i >= 0; --i) {
      double sum = y[static_cast<size_t>(i)];
      for (int64_t k = i + 1; k < n; ++k)
        sum -= l[static_cast<size_t>(k * n + i)] * inverse[static_cast<size_t>(k * n + c)];
      inverse[static_cast<size_t>(i * n + c)] = sum / l[static_cast<size_t>(i * n + i)];
    }
  }
  return inverse;
}

// The form of the paper in fp64: H^-1 = U^T U; round a column, spread its error over the columns behind it.
// margin: the distance of the nearest rounding decision from a tie, in codes.
std::vector<uint8_t> textbook_codes(Problem& p, int64_t r, const Matrix& u, double* margin) {
  std::vector<double> w(static_cast<size_t>(p.k));
  for (int64_t j = 0; j < p.k; ++j) w[static_cast<size_t>(j)] = p.weight(r, j);
  std::vector<uint8_t> codes(static_cast<size_t>(p.k));
  *margin = 1;
  for (int64_t j = 0; j < p.k; ++j) {
    const double wanted = w[static_cast<size_t>(j)];
    const double real = wanted / p.scale(r, j) + p.zero(r, j) + 0.5;
    *margin = std::min(*margin, std::fabs(real - std::nearbyint(real)));
    const double code = grid_code(wanted, p.scale(r, j), p.zero(r, j), largest_code(p.options.bits));
    codes[static_cast<size_t>(j)] = static_cast<uint8_t>(code);
    const double e = (wanted - p.value(r, j, static_cast<uint8_t>(code))) / u[static_cast<size_t>(j * p.k + j)];
    for (int64_t l = j; l < p.k; ++l) w[static_cast<size_t>(l)] -= e * u[static_cast<size_t>(j * p.k + l)];
  }
  return codes;
}

Matrix textbook_factor(Problem& p) {
  const Matrix h(p.hessian.data(), p.hessian.data() + p.hessian.count());
  const Matrix l = plain_cholesky(inverse_of(plain_cholesky(h, p.k), p.k), p.k);
  Matrix u(l.size());
  for (int64_t i = 0; i < p.k; ++i)
    for (int64_t j = 0; j <= i; ++j) u[static_cast<size_t>(j * p.k + i)] = l[static_cast<size_t>(i * p.k + j)];
  return u;
}

std::vector<int64_t> widths() {
  if (quick()) return {5, 60, 140};
  return {1, 2, 7, 33, 64, 127, 128, 129, 200};
}

GridOptions grid(int bits, int64_t group_size, bool symmetric) {
  GridOptions options;
  options.bits = bits;
  options.group_size = group_size;
  options.symmetric = symmetric;
  return options;
}

}  // namespace

LUTRA_TEST(quantize, reverse_cholesky_gives_an_upper_factor) {
  for (const int64_t k : widths()) {
    Problem p(1, k, grid(4, -1, false), 5);
    Operand<double> m({k, k});
    std::copy(p.hessian.data(), p.hessian.data() + p.hessian.count(), m.data());
    CHECK(reverse_cholesky(p.lanes.context, m.view).ok());
    double error = 0, power = 0;
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) {
        if (j < i) CHECK(m[static_cast<size_t>(i * k + j)] == 0.0);
        double sum = 0;
        for (int64_t l = std::max(i, j); l < k; ++l)
          sum += m[static_cast<size_t>(i * k + l)] * m[static_cast<size_t>(j * k + l)];
        error += (sum - p.h(i, j)) * (sum - p.h(i, j));
        power += p.h(i, j) * p.h(i, j);
      }
    CHECK_LE(error / power, 1e-28);
  }
}

LUTRA_TEST(quantize, reverse_cholesky_names_the_column) {
  Problem p(1, 9, grid(4, -1, false), 5);
  p.h(6, 6) = -1;
  const Status status = reverse_cholesky(p.lanes.context, p.hessian.view);
  CHECK(status.code == Code::kNotPositiveDefinite && status.found == 6);
}

LUTRA_TEST(quantize, gptq_gives_the_textbook_codes) {
  int64_t compared = 0;
  for (const int64_t k : widths())
    for (const int bits : {2, 3, 4})
      for (const bool symmetric : {false, true}) {
        Problem p(4, k, grid(bits, bits == 3 ? 32 : -1, symmetric), static_cast<uint64_t>(k * 10 + bits));
        Operand<uint8_t> codes({p.rows, k});
        Operand<double> loss({p.rows});
        CHECK(p.solve(codes, loss).ok());
        const Matrix u = textbook_factor(p);
        for (int64_t r = 0; r < p.rows; ++r) {
          double margin = 0;
          const std::vector<uint8_t> expected = textbook_codes(p, r, u, &margin);
          // A decision closer to a tie than the fp32 feedback's noise may fall either way, and all behind it moves.
          if (margin < 1e-5) continue;
          ++compared;
          CHECK(!std::memcmp(expected.data(), codes.data() + r * k, static_cast<size_t>(k)));
        }
      }
  CHECK(compared > (quick() ? 40 : 150));
}

LUTRA_TEST(quantize, gptq_loss_is_the_quadratic_form) {
  for (const int64_t k : widths()) {
    Problem p(6, k, grid(3, 16, false), static_cast<uint64_t>(k));
    Operand<uint8_t> codes({p.rows, k}), rounded({p.rows, k});
    Operand<double> loss({p.rows});
    CHECK(p.solve(codes, loss).ok());
    CHECK(p.round(rounded).ok());
    double gptq = 0;
    double rtn = 0;
    for (int64_t r = 0; r < p.rows; ++r) {
      const double form = p.loss(r, codes);
      CHECK_LE(std::fabs(form - loss[static_cast<size_t>(r)]), 1e-5 * form);
      gptq += form;
      rtn += p.loss(r, rounded);
    }
    CHECK_LE(gptq, rtn * (1 + 1e-12));
  }
}

LUTRA_TEST(quantize, gptq_with_a_plain_metric_rounds) {
  Problem p(5, 150, grid(4, 32, true), 9);
  for (int64_t i = 0; i < p.k; ++i)
    for (int64_t j = 0; j < p.k; ++j) p.h(i, j) = i == j ? 3.5 : 0.0;
  Operand<uint8_t> codes({p.rows, p.k}), rounded({p.rows, p.k});
  Operand<double> loss({p.rows});
  CHECK(p.solve(codes, loss).ok());
  CHECK(p.round(rounded).ok());
  CHECK(codes.same_bits(rounded));
}

LUTRA_TEST(quantize, gptq_ignores_the_scale_of_the_hessian_and_the_lanes) {
  Problem p(37, 200, grid(3, 64, false), 4);
  Operand<uint8_t> codes({p.rows, p.k}), scaled({p.rows, p.k}), one({p.rows, p.k}), three({p.rows, p.k});
  Operand<double> loss({p.rows}), scaled_loss({p.rows}), loss_one({p.rows}), loss_three({p.rows});
  CHECK(p.solve(codes, loss).ok());
  CHECK(p.solve(scaled, scaled_loss, 4.0).ok());
  CHECK(codes.same_bits(scaled));
  CHECK(p.solve(one, loss_one, 1.0, 1).ok());
  CHECK(p.solve(three, loss_three, 1.0, 3).ok());
  CHECK(codes.same_bits(one) && codes.same_bits(three));
  CHECK(loss.same_bits(loss_one) && loss.same_bits(loss_three));
}

LUTRA_TEST(quantize, gptq_takes_the_level_where_all_are_equal) {
  Problem p(2, 8, grid(4, -1, false), 4);
  for (size_t i = 0; i < p.levels.count(); ++i) p.levels[i] = 0.25f;
  Operand<uint8_t> codes({2, 8});
  Operand<double> loss({2});
  CHECK(p.solve(codes, loss).ok());
  for (size_t i = 0; i < 16; ++i) CHECK(codes[i] <= 15);
}

// The pass with any level set is the pass with that quantizer: here levels that are no grid, in no order.
LUTRA_TEST(quantize, gptq_rounds_to_levels_of_any_order) {
  Problem p(4, 60, grid(3, 16, false), 6);
  std::mt19937_64 random(8);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < p.levels.count(); ++i) p.levels[i] = normal(random);
  Operand<uint8_t> codes({4, 60});
  Operand<double> loss({4});
  CHECK(p.solve(codes, loss).ok());
  const Matrix u = textbook_factor(p);
  int64_t compared = 0;
  for (int64_t r = 0; r < p.rows; ++r) {
    std::vector<double> w(static_cast<size_t>(p.k));
    for (int64_t j = 0; j < p.k; ++j) w[static_cast<size_t>(j)] = p.weight(r, j);
    for (int64_t j = 0; j < p.k; ++j) {
      const float* level = p.levels.data() + (r * p.groups + p.group_of[static_cast<size_t>(j)]) * 8;
      const double wanted = w[static_cast<size_t>(j)];
      int best = 0;
      double second = 1e9;
      for (int c = 1; c < 8; ++c)
        if (std::fabs(wanted - level[c]) < std::fabs(wanted - level[best])) best = c;
      for (int c = 0; c < 8; ++c)
        if (c != best) second = std::min(second, std::fabs(wanted - level[c]));
      // A tie may fall either way, and all behind it moves.
      if (second - std::fabs(wanted - level[best]) < 1e-5) break;
      ++compared;
      CHECK(codes[static_cast<size_t>(r * p.k + j)] == best);
      const double e = (wanted - level[best]) / u[static_cast<size_t>(j * p.k + j)];
      for (int64_t l = j; l < p.k; ++l) w[static_cast<size_t>(l)] -= e * u[static_cast<size_t>(j * p.k + l)];
    }
  }
  CHECK(compared > 120);
}

// Codes behind a feedback that is no number would look like any others.
LUTRA_TEST(quantize, gptq_says_when_its_feedback_overflows) {
  for (const int64_t column : {7, 150}) {  // in the first block, and behind it
    Problem p(3, 160, grid(2, -1, false), 4);
    Operand<uint8_t> codes({3, 160});
    Operand<double> loss({3}), m({160, 160});
    std::copy(p.hessian.data(), p.hessian.data() + p.hessian.count(), m.data());
    Context& c = p.lanes.context;
    CHECK(reverse_cholesky(c, m.view).ok());
    m[static_cast<size_t>(column)] = 1e300;
    for (int64_t i = 0; i < 3; ++i) p.scales[i] = 0.9f;  // row 0 of the factor meets an error that is not zero
    p.level();
    const Status status = gptq_pass(c, p.w.view, m.view, p.levels.view, p.group_of.view, codes.view, loss.view);
    CHECK(status.code == Code::kNonFinite && status.found == 0);
  }
}

LUTRA_TEST(quantize, gptq_refuses) {
  Problem p(3, 20, grid(4, 8, false), 4);
  Operand<uint8_t> codes({3, 20});
  Operand<double> loss({3}), m({20, 20});
  std::copy(p.hessian.data(), p.hessian.data() + p.hessian.count(), m.data());
  Context& c = p.lanes.context;
  CHECK(reverse_cholesky(c, m.view).ok());
  const auto run = [&] {
    return gptq_pass(c, p.w.view, m.view, p.levels.view, p.group_of.view, codes.view, loss.view);
  };
  const auto with_levels = [&](const TensorView& levels) {
    return gptq_pass(c, p.w.view, m.view, levels, p.group_of.view, codes.view, loss.view).code;
  };
  CHECK(run().ok());
  Operand<float> single({3, 3, 1}), odd({3, 3, 12}), many({3, 3, 512}), flat({3, 48}), fewer({2, 3, 16});
  CHECK(with_levels(single.view) == Code::kOption);
  CHECK(with_levels(odd.view) == Code::kOption);
  CHECK(with_levels(many.view) == Code::kOption);
  CHECK(with_levels(flat.view) == Code::kShape);
  CHECK(with_levels(fewer.view) == Code::kShape);
  p.group_of[3] = 3;
  CHECK(run().code == Code::kOption);
  p.group_of[3] = -1;
  CHECK(run().code == Code::kOption);
  p.group_of[3] = 0;
  p.levels[2] = INFINITY;
  CHECK(run().code == Code::kNonFinite);
  p.levels[2] = NAN;
  CHECK(run().code == Code::kNonFinite);
  p.levels[2] = 1;
  p.w[5] = NAN;
  const Status status = run();
  CHECK(status.code == Code::kNonFinite && status.found == 5);
  p.w[5] = 0;
  m[21] = 0;
  CHECK(run().code == Code::kNotPositiveDefinite);
  CHECK(gptq_pass(c, p.w.view, m.view, p.levels.view, p.group_of.view, codes.view, p.w.view).code == Code::kShape);
  CHECK(gptq_pass(c, m.view, m.view, p.levels.view, p.group_of.view, codes.view, loss.view).code == Code::kDtype);
}
