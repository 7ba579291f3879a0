// Rotations are orthogonal, equal their dense matrix, and do the same on every number of lanes and both sides.
#include "linalg/rotation.h"

#include <numbers>

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

namespace {

std::vector<int64_t> sizes() {
  if (quick()) return {1, 2, 7, 12, 64};
  return {1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 20, 33, 64, 96, 172, 256};
}

void random_signs(Operand<double>& signs, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < signs.count(); ++i) signs[i] = random() % 2 ? 1.0 : -1.0;
}

void random_values(Operand<double>& x, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (size_t i = 0; i < x.count(); ++i) x[i] = normal(random);
}

// Q[i,j] by its definition: signs_i S[p,q] C[r,s], i = p b + r, j = q b + s.
double dense(const double* signs, int64_t n, int64_t i, int64_t j) {
  int64_t odd = n;
  while (odd % 2 == 0) odd /= 2;
  const double walsh = __builtin_parityll(static_cast<uint64_t>((i / odd) & (j / odd))) ? -1.0 : 1.0;
  const double angle = 2 * std::numbers::pi * static_cast<double>((i % odd) * (j % odd)) / static_cast<double>(odd);
  return signs[i] * walsh * (std::cos(angle) + std::sin(angle)) / std::sqrt(static_cast<double>(n));
}

}  // namespace

LUTRA_TEST(linalg, rotation_is_its_dense_matrix_on_both_sides) {
  for (const int64_t n : sizes()) {
    Lanes lanes(2);
    Operand<double> signs({n}), x({11, 2 * n}), y({11, 2 * n}), tall({2 * n, 11}), turned({2 * n, 11});
    random_signs(signs, 1);
    random_values(x, 2);
    for (int64_t i = 0; i < 11; ++i)
      for (int64_t j = 0; j < 2 * n; ++j) tall[static_cast<size_t>(j * 11 + i)] = x[static_cast<size_t>(i * 2 * n + j)];
    CHECK(rotate(lanes.context, Axis::kColumns, x.view, signs.view, y.view).ok());
    CHECK(rotate(lanes.context, Axis::kRows, tall.view, signs.view, turned.view).ok());
    double error = 0.0;
    for (int64_t row = 0; row < 11; ++row)
      for (int64_t segment = 0; segment < 2; ++segment)
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0.0;
          for (int64_t i = 0; i < n; ++i)
            sum += x[static_cast<size_t>(row * 2 * n + segment * n + i)] * dense(signs.data(), n, i, j);
          const double found = y[static_cast<size_t>(row * 2 * n + segment * n + j)];
          error = std::max(error, std::fabs(found - sum));
          CHECK(turned[static_cast<size_t>((segment * n + j) * 11 + row)] == found);
        }
    CHECK_LE(error, 1e-12);
  }
}

LUTRA_TEST(linalg, rotation_is_orthogonal) {
  for (const int64_t n : sizes()) {
    Lanes lanes(3);
    Operand<double> signs({n}), identity({n, n}), q({n, n});
    random_signs(signs, 3);
    for (int64_t i = 0; i < n * n; ++i) identity[static_cast<size_t>(i)] = i % (n + 1) == 0 ? 1.0 : 0.0;
    CHECK(rotate(lanes.context, Axis::kColumns, identity.view, signs.view, q.view).ok());
    double worst = 0.0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0.0;
        for (int64_t k = 0; k < n; ++k) sum += q[static_cast<size_t>(i * n + k)] * q[static_cast<size_t>(j * n + k)];
        worst = std::max(worst, std::fabs(sum - (i == j ? 1.0 : 0.0)));
      }
    CHECK_LE(worst, 1e-12);
  }
}

LUTRA_TEST(linalg, rotation_gives_the_same_bits_on_all_lanes) {
  for (const int64_t n : {int64_t{12}, int64_t{64}}) {
    Operand<double> signs({n});
    random_signs(signs, 4);
    Operand<float> x({13, n}), one({13, n}), many({13, n});
    fill(x, Distribution::kOutlier, 5);
    for (const auto& [count, y] : {std::pair<int, Operand<float>*>{1, &one}, {32, &many}}) {
      Lanes lanes(count);
      CHECK(rotate(lanes.context, Axis::kColumns, x.view, signs.view, y->view).ok());
    }
    CHECK(one.same_bits(many));
  }
}

// A spike in one column is spread over all of them.
LUTRA_TEST(linalg, rotation_spreads_outliers) {
  for (const int64_t n : {int64_t{96}, int64_t{172}, int64_t{256}}) {
    Lanes lanes(2);
    Operand<double> signs({n});
    random_signs(signs, 6);
    Operand<float> x({16, n}), y({16, n});
    fill(x, Distribution::kNormal, 7);
    for (int64_t row = 0; row < 16; ++row) x[static_cast<size_t>(row * n + 5)] *= 60.0f;
    CHECK(rotate(lanes.context, Axis::kColumns, x.view, signs.view, y.view).ok());
    const auto ratio = [](Operand<float>& values) {
      double most = 0.0, power = 0.0;
      for (size_t i = 0; i < values.count(); ++i) {
        most = std::max(most, std::fabs(static_cast<double>(values[i])));
        power += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      }
      return most / std::sqrt(power / static_cast<double>(values.count()));
    };
    CHECK_LE(ratio(y), ratio(x) / 4);
  }
}

LUTRA_TEST(linalg, rotation_reads_and_writes_what_is_stored) {
  Lanes lanes(2);
  Operand<double> signs({20}), wide({3, 20}), expected({3, 20});
  random_signs(signs, 8);
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    Operand<uint16_t> x({3, 20}, dtype), y({3, 20}, dtype);
    fill(x, Distribution::kNormal, 9);
    const bool half = dtype == Dtype::kF16;
    for (size_t i = 0; i < 60; ++i) wide[i] = half ? half_to_float(x[i]) : bfloat16_to_float(x[i]);
    CHECK(rotate(lanes.context, Axis::kColumns, x.view, signs.view, y.view).ok());
    CHECK(rotate(lanes.context, Axis::kColumns, wide.view, signs.view, expected.view).ok());
    for (size_t i = 0; i < 60; ++i) {
      const float value = static_cast<float>(expected[i]);
      CHECK(y[i] == (half ? float_to_half(value) : float_to_bfloat16(value)));
    }
  }
}

LUTRA_TEST(linalg, rotation_refuses) {
  Lanes lanes(1);
  Operand<double> signs({4}), x({4, 8}), y({4, 8}), narrow({4, 6}), narrow_y({4, 6});
  for (size_t i = 0; i < 4; ++i) signs[i] = 1.0;
  random_values(x, 1);
  random_values(narrow, 1);
  Context& context = lanes.context;
  const auto code = [&](const Operand<double>& from, const Operand<double>& to, const Operand<double>& by) {
    return rotate(context, Axis::kColumns, from.view, by.view, to.view).code;
  };
  CHECK(code(x, y, signs) == Code::kOk);
  CHECK(code(narrow, narrow_y, signs) == Code::kShape);
  CHECK(code(x, narrow_y, signs) == Code::kShape);
  CHECK(code(x, x, signs) == Code::kOption);
  CHECK(code(x, y, x) == Code::kShape);
  Operand<uint8_t> bytes({4, 8});
  CHECK(rotate(context, Axis::kRows, bytes.view, signs.view, y.view).code == Code::kDtype);
  signs[2] = 0.5;
  CHECK(code(x, y, signs) == Code::kOption);
  Operand<double> prime({1031}), long_x({1, 1031}), long_y({1, 1031});
  for (size_t i = 0; i < 1031; ++i) prime[i] = 1.0;
  random_values(long_x, 1);
  CHECK(code(long_x, long_y, prime) == Code::kUnsupported);
  signs[2] = 1.0;
  CancelToken token;
  token.cancel();
  context.cancel = &token;
  CHECK(code(x, y, signs) == Code::kCancelled);
  Operand<double> eight({8});
  CHECK(scale_matrix(context, x.view, signs.view, eight.view, y.view).code == Code::kCancelled);
}

LUTRA_TEST(linalg, scales_rows_and_columns) {
  Lanes lanes(2);
  Operand<double> rows({5}), columns({7}), x({5, 7}), y({5, 7});
  random_values(rows, 1);
  random_values(columns, 2);
  random_values(x, 3);
  CHECK(scale_matrix(lanes.context, x.view, rows.view, columns.view, y.view).ok());
  for (size_t i = 0; i < 35; ++i) CHECK(y[i] == x[i] * rows[i / 7] * columns[i % 7]);
  CHECK(scale_matrix(lanes.context, x.view, rows.view, columns.view, x.view).ok());
  CHECK(x.same_bits(y));
  CHECK(scale_matrix(lanes.context, x.view, columns.view, rows.view, y.view).code == Code::kShape);
  Operand<float> narrow({5, 7});
  TensorView shared = narrow.view;
  shared.dtype = Dtype::kBF16;
  CHECK(scale_matrix(lanes.context, narrow.view, rows.view, columns.view, shared).code == Code::kOption);
}
