#include "linalg/cholesky.h"

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// A random symmetric positive definite matrix: G G^T + n I.
void fill_spd(Operand<double>& a, int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> g(static_cast<size_t>(n * n));
  for (double& v : g) v = normal(random);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double sum = i == j ? 0.1 * static_cast<double>(n) : 0.0;
      for (int64_t k = 0; k < n; ++k) sum += g[static_cast<size_t>(i * n + k)] * g[static_cast<size_t>(j * n + k)];
      a[static_cast<size_t>(i * n + j)] = a[static_cast<size_t>(j * n + i)] = sum;
    }
}

std::vector<int64_t> sizes() {
  if (quick()) return {1, 5, 97, 130};
  return {1, 2, 3, 15, 16, 17, 31, 33, 63, 95, 96, 97, 128, 191, 192, 193, 300};
}

}  // namespace

LUTRA_TEST(linalg, cholesky_reconstructs) {
  for (const int64_t n : sizes()) {
    Operand<double> a({n, n}), l1({n, n}), l2({n, n}), l3({n, n});
    fill_spd(a, n, static_cast<uint64_t>(n));
    for (Operand<double>* l : {&l1, &l2, &l3}) {
      std::copy(a.data(), a.data() + a.count(), l->data());
      // The upper triangle is not read.
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = i + 1; j < n; ++j) (*l)[static_cast<size_t>(i * n + j)] = NAN;
    }
    Lanes one(1), two(2), three(3);
    CHECK(cholesky(one.context, l1.view).ok());
    CHECK(cholesky(two.context, l2.view).ok());
    CHECK(cholesky(three.context, l3.view).ok());
    CHECK(l1.same_bits(l2) && l1.same_bits(l3));
    double error = 0;
    double power = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        if (j > i) CHECK(l1[static_cast<size_t>(i * n + j)] == 0.0);
        double sum = 0;
        for (int64_t k = 0; k <= std::min(i, j); ++k)
          sum += l1[static_cast<size_t>(i * n + k)] * l1[static_cast<size_t>(j * n + k)];
        const double wanted = a[static_cast<size_t>(i * n + j)];
        error += (sum - wanted) * (sum - wanted);
        power += wanted * wanted;
      }
    CHECK_LE(error / power, 1e-28);
  }
}

LUTRA_TEST(linalg, cholesky_names_the_bad_pivot) {
  Lanes lanes(2);
  for (const int64_t bad : {0, 40, 100, 129}) {
    Operand<double> a({130, 130});
    fill_spd(a, 130, 3);
    a[static_cast<size_t>(bad * 130 + bad)] = -1.0;
    const Status status = cholesky(lanes.context, a.view);
    CHECK(status.code == Code::kNotPositiveDefinite && status.found == bad);
  }
  Operand<double> nan({4, 4});
  CHECK(cholesky(lanes.context, nan.view).code == Code::kNotPositiveDefinite);
  Operand<double> zero({3, 3});
  for (size_t i = 0; i < 9; ++i) zero[i] = 0;
  CHECK(cholesky(lanes.context, zero.view).code == Code::kNotPositiveDefinite);
}

LUTRA_TEST(linalg, cholesky_refuses) {
  Lanes lanes(1);
  Operand<double> wide({3, 4}), flat({9});
  Operand<float> single({3, 3});
  CHECK(cholesky(lanes.context, wide.view).code == Code::kShape);
  CHECK(cholesky(lanes.context, flat.view).code == Code::kShape);
  CHECK(cholesky(lanes.context, single.view).code == Code::kDtype);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  Operand<double> a({130, 130});
  fill_spd(a, 130, 3);
  CHECK(cholesky(lanes.context, a.view).code == Code::kCancelled);
}
