#include "linalg/low_rank.h"

#include <algorithm>
#include <array>
#include <vector>

#include "../operands.h"
#include "linalg/orthonormal.h"
#include "linalg/symmetric_eigen.h"

using namespace lutra;
using namespace lutra::test;

namespace {

using Square = std::vector<double>;

double& at(Square& s, int64_t n, int64_t i, int64_t j) { return s[static_cast<size_t>(i * n + j)]; }

// Eigenvalues by the textbook's two-sided Jacobi, largest first: the oracle.
std::vector<double> eigenvalues(Square s, int64_t n) {
  for (int sweep = 0; sweep < 60; ++sweep)
    for (int64_t p = 0; p < n; ++p)
      for (int64_t q = p + 1; q < n; ++q) {
        if (at(s, n, p, q) == 0.0) continue;
        const double theta = (at(s, n, q, q) - at(s, n, p, p)) / (2 * at(s, n, p, q));
        const double t = (theta >= 0 ? 1.0 : -1.0) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), sine = t * c;
        for (int64_t i = 0; i < n; ++i) {
          const double left = at(s, n, i, p), right = at(s, n, i, q);
          at(s, n, i, p) = c * left - sine * right;
          at(s, n, i, q) = sine * left + c * right;
        }
        for (int64_t i = 0; i < n; ++i) {
          const double left = at(s, n, p, i), right = at(s, n, q, i);
          at(s, n, p, i) = c * left - sine * right;
          at(s, n, q, i) = sine * left + c * right;
        }
      }
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(at(s, n, i, i));
  std::sort(values.rbegin(), values.rend());
  return values;
}

// A matrix whose singular values fall by `decay` each, and inputs' Hessian with a shared direction.
struct Layer {
  int64_t m, k;
  Operand<float> x;
  Operand<double> metric;

  Layer(int64_t m_, int64_t k_, double decay, uint64_t seed) : m(m_), k(k_), x({m_, k_}), metric({k_, k_}) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    std::vector<double> sum(static_cast<size_t>(m * k), 0.0);
    double strength = 1.0;
    for (int64_t i = 0; i < std::min(m, k); ++i, strength *= decay) {
      std::vector<double> u(static_cast<size_t>(m)), v(static_cast<size_t>(k));
      for (double& value : u) value = normal(random);
      for (double& value : v) value = normal(random);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t c = 0; c < k; ++c)
          sum[static_cast<size_t>(r * k + c)] += strength * u[static_cast<size_t>(r)] * v[static_cast<size_t>(c)];
    }
    for (size_t i = 0; i < x.count(); ++i) x[i] = static_cast<float>(sum[i]);
    std::vector<double> tokens(static_cast<size_t>(2 * k * k));
    for (int64_t t = 0; t < 2 * k; ++t) {
      const double shared = normal(random);
      for (int64_t j = 0; j < k; ++j)
        tokens[static_cast<size_t>(t * k + j)] = (1 + static_cast<double>(j % 5)) * (normal(random) + shared);
    }
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) {
        double h = 0.0;
        for (int64_t t = 0; t < 2 * k; ++t)
          h += tokens[static_cast<size_t>(t * k + i)] * tokens[static_cast<size_t>(t * k + j)];
        metric[static_cast<size_t>(i * k + j)] = h;
      }
  }

  TensorView weighing(bool weighted) const { return weighted ? metric.view : TensorView{}; }
  double h(bool weighted, int64_t i, int64_t j) const {
    return weighted ? metric.view.as<double>()[i * k + j] : static_cast<double>(i == j);
  }

  // d H d^T, [m,m], for d = x - b a.
  Square gram(bool weighted, const Operand<float>* b = nullptr, const Operand<float>* a = nullptr) {
    std::vector<double> d(static_cast<size_t>(m * k)), dh(static_cast<size_t>(m * k), 0.0);
    const int64_t rank = a ? a->view.shape[0] : 0;
    for (int64_t r = 0; r < m; ++r)
      for (int64_t c = 0; c < k; ++c) {
        double left = x[static_cast<size_t>(r * k + c)];
        for (int64_t i = 0; i < rank; ++i)
          left -= static_cast<double>(b->view.as<float>()[r * rank + i]) * a->view.as<float>()[i * k + c];
        d[static_cast<size_t>(r * k + c)] = left;
      }
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < k; ++i)
        for (int64_t c = 0; c < k; ++c)
          dh[static_cast<size_t>(r * k + c)] += d[static_cast<size_t>(r * k + i)] * h(weighted, i, c);
    Square g(static_cast<size_t>(m * m), 0.0);
    for (int64_t r = 0; r < m; ++r)
      for (int64_t s = 0; s < m; ++s)
        for (int64_t c = 0; c < k; ++c)
          at(g, m, r, s) += dh[static_cast<size_t>(r * k + c)] * d[static_cast<size_t>(s * k + c)];
    return g;
  }
  double energy(bool weighted, const Operand<float>* b = nullptr, const Operand<float>* a = nullptr) {
    Square g = gram(weighted, b, a);
    double sum = 0.0;
    for (int64_t r = 0; r < m; ++r) sum += at(g, m, r, r);
    return sum;
  }
};

}  // namespace

LUTRA_TEST(linalg, orthonormal_rows_span_what_they_spanned) {
  const int64_t p = 23, n = 37;
  Operand<double> x({p, n}), one({p, n}), three({p, n});
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  for (size_t i = 0; i < x.count(); ++i) x[i] = normal(random) * (i < 200 ? 1e-9 : 1e6);
  // A row that its predecessors span, and one of zeros.
  for (int64_t c = 0; c < n; ++c) x[static_cast<size_t>(7 * n + c)] = 2 * x[static_cast<size_t>(c)];
  for (int64_t c = 0; c < n; ++c) x[static_cast<size_t>(9 * n + c)] = 0.0;
  for (Operand<double>* copy : {&one, &three}) {
    std::copy_n(x.data(), x.count(), copy->data());
    Lanes lanes(copy == &one ? 1 : 3);
    CHECK(orthonormalize_rows(lanes.context, {copy->data(), p, n, n}).ok());
  }
  CHECK(one.same_bits(three));
  for (int64_t i = 0; i < p; ++i)
    for (int64_t j = 0; j <= i; ++j)
      CHECK_LE(std::fabs(dot_product(one.data() + i * n, one.data() + j * n, n) - (i == j)), 1e-14);
  for (int64_t i = 0; i < p; ++i) {
    double* row = x.data() + i * n;
    const double whole = dot_product(row, row, n);
    double kept = 0.0;
    for (int64_t j = 0; j <= i; ++j) {
      const double part = dot_product(row, one.data() + j * n, n);
      kept += part * part;
    }
    CHECK_LE(std::fabs(whole - kept), 1e-13 * whole);
  }
  Lanes lanes(1);
  CHECK(orthonormalize_rows(lanes.context, {x.data(), n, p, p}).code == Code::kShape);
  x[5 * n] = NAN;
  CHECK(orthonormalize_rows(lanes.context, {x.data(), p, n, n}).ok());
}

LUTRA_TEST(linalg, eigenvectors_are_those_of_the_matrix) {
  for (const int64_t n : {1, 2, 5, 16, 33}) {
    Layer layer(n, n, 0.7, static_cast<uint64_t>(n));
    const Square whole = layer.gram(false);
    const std::vector<double> expected = eigenvalues(whole, n);
    Operand<double> s({n, n}), v({n, n}), again({n, n});
    for (Operand<double>* vectors : {&v, &again}) {
      Lanes lanes(vectors == &v ? 1 : 3);
      std::copy(whole.begin(), whole.end(), s.data());
      CHECK(symmetric_eigen(lanes.context, {s.data(), n, n, n}, {vectors->data(), n, n, n}).ok());
    }
    CHECK(v.same_bits(again));
    for (int64_t i = 0; i < n; ++i) {
      const double* row = v.data() + i * n;
      for (int64_t j = 0; j <= i; ++j) CHECK_LE(std::fabs(dot_product(row, v.data() + j * n, n) - (i == j)), 1e-13);
      for (int64_t r = 0; r < n; ++r) {
        const double image = dot_product(whole.data() + r * n, row, n);
        CHECK_LE(std::fabs(image - expected[static_cast<size_t>(i)] * row[r]), 1e-12 * expected[0]);
      }
    }
  }
  Lanes lanes(1);
  Operand<double> wide({2, 3}), v({2, 2});
  CHECK(symmetric_eigen(lanes.context, {wide.data(), 2, 3, 3}, {v.data(), 2, 2, 2}).code == Code::kShape);
}

LUTRA_TEST(linalg, low_rank_fit_is_the_truncated_decomposition) {
  for (const auto& [m, k, rank] : std::vector<std::array<int64_t, 3>>{
           {1, 16, 1}, {16, 1, 1}, {40, 24, 5}, {24, 40, 1}, {33, 70, 12}, {70, 33, 33}})
    for (const bool weighted : {false, true})
      for (const double decay : {0.5, 0.85}) {
        Layer layer(m, k, decay, static_cast<uint64_t>(m * k + rank));
        const double whole = layer.energy(weighted);
        const std::vector<double> values = eigenvalues(layer.gram(weighted), m);
        double best = 0.0;
        for (size_t i = static_cast<size_t>(rank); i < values.size(); ++i) best += std::max(0.0, values[i]);
        Operand<float> b({m, rank}), a({rank, k}), b3({m, rank}), a3({rank, k});
        Lanes one(1), three(3);
        double captured = 0.0;
        const TensorView metric = layer.weighing(weighted);
        CHECK(low_rank_fit(one.context, layer.x.view, metric, false, b.view, a.view, &captured).ok());
        CHECK(low_rank_fit(three.context, layer.x.view, metric, false, b3.view, a3.view, nullptr).ok());
        CHECK(a.same_bits(a3) && b.same_bits(b3));
        const double left = layer.energy(weighted, &b, &a);
        // fp64's own noise in `best` is relative to the largest eigenvalue.
        CHECK_LE(best - left, 1e-9 * whole);
        CHECK_LE(left, best * (1 + 1e-6) + 1e-12 * whole);
        CHECK_LE(std::fabs(captured - (whole - left)), 1e-5 * whole);
        for (int64_t i = 0; i < rank; ++i) {
          double down = 0.0, up = 0.0;
          for (int64_t c = 0; c < k; ++c)
            down += std::pow(a[static_cast<size_t>(i * k + c)], 2) / static_cast<double>(k);
          for (int64_t r = 0; r < m; ++r)
            up += std::pow(b[static_cast<size_t>(r * rank + i)], 2) / static_cast<double>(m);
          CHECK_LE(std::fabs(down - up), 1e-4 * up);
        }
      }
}

LUTRA_TEST(linalg, low_rank_fit_in_a_metric_is_the_better_one_there) {
  Layer layer(40, 60, 0.95, 5);
  Lanes lanes(2);
  Operand<float> b({40, 4}), a({4, 60}), plain_b({40, 4}), plain_a({4, 60});
  CHECK(low_rank_fit(lanes.context, layer.x.view, layer.metric.view, false, b.view, a.view, nullptr).ok());
  CHECK(low_rank_fit(lanes.context, layer.x.view, TensorView{}, false, plain_b.view, plain_a.view, nullptr).ok());
  CHECK_LE(layer.energy(true, &b, &a), 0.99 * layer.energy(true, &plain_b, &plain_a));
  CHECK_LE(layer.energy(false, &plain_b, &plain_a), 0.99 * layer.energy(false, &b, &a));
}

LUTRA_TEST(linalg, low_rank_fit_takes_a_singular_metric_and_a_start) {
  // Inputs that span 3 directions: rank 3 leaves nothing, whatever the matrix.
  const int64_t m = 20, k = 32;
  Layer layer(m, k, 0.99, 8);
  std::vector<float> directions(static_cast<size_t>(3 * k));
  fill(directions.data(), directions.size(), Distribution::kNormal, 4);
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j) {
      double h = 0.0;
      for (int64_t t = 0; t < 3; ++t)
        h += static_cast<double>(directions[static_cast<size_t>(t * k + i)]) *
             directions[static_cast<size_t>(t * k + j)];
      layer.metric[static_cast<size_t>(i * k + j)] = 1e12 * h;
    }
  Lanes lanes(2);
  Operand<float> b({m, 3}), a({3, k}), warm_b({m, 3}), warm_a({3, k});
  CHECK(low_rank_fit(lanes.context, layer.x.view, layer.metric.view, false, b.view, a.view, nullptr).ok());
  CHECK_LE(layer.energy(true, &b, &a), 1e-10 * layer.energy(true));
  std::copy_n(b.data(), b.count(), warm_b.data());
  CHECK(low_rank_fit(lanes.context, layer.x.view, layer.metric.view, true, warm_b.view, warm_a.view, nullptr).ok());
  CHECK_LE(layer.energy(true, &warm_b, &warm_a), 1e-10 * layer.energy(true));
  // From a start of zeros and for a matrix of zeros there is an answer too.
  for (size_t i = 0; i < b.count(); ++i) b[i] = 0.0f;
  for (size_t i = 0; i < layer.x.count(); ++i) layer.x[i] = 0.0f;
  CHECK(low_rank_fit(lanes.context, layer.x.view, layer.metric.view, true, b.view, a.view, nullptr).ok());
  CHECK(layer.energy(false, &b, &a) == 0.0);
}

LUTRA_TEST(linalg, low_rank_fit_refuses) {
  Lanes lanes(1);
  Operand<float> x({4, 6}), b({4, 2}), a({2, 6}), b5({4, 5}), a5({5, 6}), b0({4, 0}), a0({0, 6});
  Operand<double> metric({6, 6}), small({4, 4});
  fill(x, Distribution::kNormal, 1);
  const TensorView none;
  CHECK(low_rank_fit(lanes.context, x.view, none, false, b5.view, a5.view, nullptr).code == Code::kOption);
  CHECK(low_rank_fit(lanes.context, x.view, none, false, b0.view, a0.view, nullptr).code == Code::kOption);
  CHECK(low_rank_fit(lanes.context, x.view, none, false, b5.view, a.view, nullptr).code == Code::kShape);
  CHECK(low_rank_fit(lanes.context, x.view, small.view, false, b.view, a.view, nullptr).code == Code::kShape);
  CHECK(low_rank_fit(lanes.context, x.view, x.view, false, b.view, a.view, nullptr).code == Code::kDtype);
  CHECK(low_rank_fit(lanes.context, metric.view, none, false, b.view, a.view, nullptr).code == Code::kDtype);
  x[7] = NAN;
  const Status status = low_rank_fit(lanes.context, x.view, none, false, b.view, a.view, nullptr);
  CHECK(status.code == Code::kNonFinite && status.found == 7);
  fill(x, Distribution::kNormal, 1);
  for (int64_t i = 0; i < 36; ++i) metric[static_cast<size_t>(i)] = i % 7 == 0 ? 1.0 : 0.0;
  metric[20] = NAN;
  const Status weighed = low_rank_fit(lanes.context, x.view, metric.view, false, b.view, a.view, nullptr);
  CHECK(weighed.code == Code::kNonFinite && weighed.found == 20);
  for (size_t i = 0; i < x.count(); ++i) x[i] = 3e38f;
  CHECK(low_rank_fit(lanes.context, x.view, none, false, b.view, a.view, nullptr).code == Code::kNonFinite);
  fill(x, Distribution::kNormal, 1);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  CHECK(low_rank_fit(lanes.context, x.view, none, false, b.view, a.view, nullptr).code == Code::kCancelled);
}
