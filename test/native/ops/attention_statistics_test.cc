#include "ops/attention_statistics.h"

#include <algorithm>
#include <cmath>

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// gram += (A x)^T (A x) in fp64, A the causal attention of one head.
void brute_gram(const std::vector<std::vector<double>>& attention, Operand<float>& x, int64_t k,
                std::vector<double>& gram) {
  const int64_t n = static_cast<int64_t>(attention.size());
  for (int64_t t = 0; t < n; ++t) {
    std::vector<double> mixed(static_cast<size_t>(k));
    for (int64_t s = 0; s < n; ++s)
      for (int64_t i = 0; i < k; ++i)
        mixed[static_cast<size_t>(i)] += attention[static_cast<size_t>(t)][static_cast<size_t>(s)] *
                                         static_cast<double>(x[static_cast<size_t>(s * k + i)]);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j)
        gram[static_cast<size_t>(i * k + j)] += mixed[static_cast<size_t>(i)] * mixed[static_cast<size_t>(j)];
  }
}

struct Attention {
  AttentionShape shape;
  int64_t n, k;
  Operand<float> q, keys, x;
  Attention(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window, int64_t n_, int64_t k_)
      : shape{heads, kv_heads, head_dim, 0, window},
        n(n_),
        k(k_),
        q({n, heads * head_dim}),
        keys({n + 3, kv_heads * head_dim}),
        x({n, k}) {
    fill(q, Distribution::kNormal, 1);
    fill(keys, Distribution::kNormal, 2);
    fill(x, Distribution::kNormal, 3);
  }

  std::vector<std::vector<double>> weights(int64_t head) {
    const int64_t d = shape.head_dim, kv = head / (shape.heads / shape.kv_heads);
    std::vector<std::vector<double>> a(static_cast<size_t>(n), std::vector<double>(static_cast<size_t>(n)));
    for (int64_t t = 0; t < n; ++t) {
      double sum = 0;
      for (int64_t s = shape.window > 0 ? std::max<int64_t>(0, t + 1 - shape.window) : 0; s <= t; ++s) {
        double score = 0;
        for (int64_t i = 0; i < d; ++i)
          score += static_cast<double>(q[static_cast<size_t>(t * q.view.shape[1] + head * d + i)]) *
                   static_cast<double>(keys[static_cast<size_t>(s * keys.view.shape[1] + kv * d + i)]);
        sum += a[static_cast<size_t>(t)][static_cast<size_t>(s)] = std::exp(score / std::sqrt(static_cast<double>(d)));
      }
      for (double& weight : a[static_cast<size_t>(t)]) weight /= sum;
    }
    return a;
  }
};

}  // namespace

LUTRA_TEST(ops, attended_grams_are_those_of_causal_attention) {
  for (const auto& [heads, kv_heads, window, n, k] :
       {std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>{4, 2, 0, 37, 20},
        {3, 3, 5, 37, 7},
        {2, 1, 0, 1, 3},
        {1, 1, 40, 300, 9}}) {
    Attention a(heads, kv_heads, 6, window, n, k);
    Operand<double> all({kv_heads, k, k}), last({1, k, k}), lanes_gram({kv_heads, k, k});
    std::fill_n(all.data(), all.count(), 0.0);
    std::fill_n(last.data(), last.count(), 0.0);
    std::fill_n(lanes_gram.data(), all.count(), 0.0);
    Lanes two(2), five(5);
    CHECK(accumulate_attended_grams(two.context, a.q.view, a.keys.view, a.x.view, a.shape, 0, all.view).ok());
    CHECK(accumulate_attended_grams(five.context, a.q.view, a.keys.view, a.x.view, a.shape, 0, lanes_gram.view).ok());
    CHECK(all.same_bits(lanes_gram));
    for (int64_t kv = 0; kv < kv_heads; ++kv) {
      std::vector<double> expected(static_cast<size_t>(k * k));
      for (int64_t h = kv * (heads / kv_heads); h < (kv + 1) * (heads / kv_heads); ++h)
        brute_gram(a.weights(h), a.x, k, expected);
      double error = 0, power = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        const double off = all[static_cast<size_t>(kv * k * k) + i] - expected[i];
        error += off * off;
        power += expected[i] * expected[i];
      }
      CHECK_LE(error / power, 1e-10);
    }
    // A head by itself has the same bits as among others.
    CHECK(
        accumulate_attended_grams(two.context, a.q.view, a.keys.view, a.x.view, a.shape, kv_heads - 1, last.view).ok());
    CHECK(!std::memcmp(last.data(), all.data() + (kv_heads - 1) * k * k, last.count() * sizeof(double)));
  }
}

// ||W_o D X A^T||^2 of a change D of the value projection, taken directly, is tr(W_o^T W_o D C D^T) with the gram C.
LUTRA_TEST(ops, attended_grams_give_the_change_of_the_attention_output) {
  const int64_t n = 23, k = 10, d = 4, out = 9;
  Attention a(1, 1, d, 0, n, k);
  Operand<double> gram({1, k, k});
  std::fill_n(gram.data(), gram.count(), 0.0);
  Lanes lanes(1);
  CHECK(accumulate_attended_grams(lanes.context, a.q.view, a.keys.view, a.x.view, a.shape, 0, gram.view).ok());
  Operand<float> moved({d, k}), output({out, d});
  fill(moved, Distribution::kNormal, 7);
  fill(output, Distribution::kNormal, 8);
  const auto attention = a.weights(0);
  const auto change = [&](int64_t o, int64_t i) {
    double sum = 0;
    for (int64_t r = 0; r < d; ++r)
      sum += static_cast<double>(output[static_cast<size_t>(o * d + r)]) *
             static_cast<double>(moved[static_cast<size_t>(r * k + i)]);
    return sum;
  };
  double direct = 0, form = 0;
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t t = 0; t < n; ++t) {
      double y = 0;
      for (int64_t s = 0; s <= t; ++s)
        for (int64_t i = 0; i < k; ++i)
          y += attention[static_cast<size_t>(t)][static_cast<size_t>(s)] *
               static_cast<double>(a.x[static_cast<size_t>(s * k + i)]) * change(o, i);
      direct += y * y;
    }
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) form += change(o, i) * gram[static_cast<size_t>(i * k + j)] * change(o, j);
  }
  CHECK_LE(std::fabs(form / direct - 1), 1e-5);
}

// What tokens see does not change when more follow them.
LUTRA_TEST(ops, attended_grams_of_a_prefix_do_not_know_what_follows) {
  const int64_t n = 40, k = 8;
  Attention a(2, 2, 4, 0, n, k);
  Lanes lanes(2);
  const auto prefix = [&](int64_t tokens, Operand<double>& gram) {
    std::fill_n(gram.data(), gram.count(), 0.0);
    TensorView q = a.q.view, x = a.x.view;
    q.shape[0] = x.shape[0] = tokens;
    CHECK(accumulate_attended_grams(lanes.context, q, a.keys.view, x, a.shape, 0, gram.view).ok());
  };
  Operand<double> before({2, k, k}), after({2, k, k});
  prefix(25, before);
  for (int64_t i = 25 * k; i < n * k; ++i) a.x[static_cast<size_t>(i)] = NAN;
  for (int64_t i = 25 * 8; i < (n + 3) * 8; ++i) a.keys[static_cast<size_t>(i)] = NAN;
  prefix(25, after);
  CHECK(before.same_bits(after));
}

LUTRA_TEST(ops, head_grams_are_those_of_the_heads_columns) {
  Operand<float> x({70, 15});
  fill(x, Distribution::kNormal, 4);
  Operand<double> gram({3, 5, 5});
  std::fill_n(gram.data(), gram.count(), 1.0);
  Lanes lanes(3);
  CHECK(accumulate_head_grams(lanes.context, x.view, gram.view).ok());
  for (int64_t h = 0; h < 3; ++h)
    for (int64_t i = 0; i < 5; ++i)
      for (int64_t j = 0; j < 5; ++j) {
        double expected = 1;
        for (int64_t t = 0; t < 70; ++t)
          expected += static_cast<double>(x[static_cast<size_t>(t * 15 + h * 5 + i)]) *
                      static_cast<double>(x[static_cast<size_t>(t * 15 + h * 5 + j)]);
        CHECK_LE(std::fabs(gram[static_cast<size_t>((h * 5 + i) * 5 + j)] - expected), 1e-4);
      }
}

LUTRA_TEST(ops, attention_statistics_refuse) {
  Attention a(4, 2, 6, 0, 11, 5);
  Lanes lanes(1);
  Operand<double> gram({2, 5, 5}), wide({2, 6, 6}), heads({4, 6, 6}), packed({2, 15}), short_one({2, 14});
  Operand<float> single({2, 15});
  const auto run = [&](const AttentionShape& shape, int64_t first, const TensorView& out) {
    return accumulate_attended_grams(lanes.context, a.q.view, a.keys.view, a.x.view, shape, first, out).code;
  };
  AttentionShape shape = a.shape;
  CHECK(run(shape, 1, gram.view) == Code::kOption);
  CHECK(run(shape, -1, gram.view) == Code::kOption);
  CHECK(run(shape, 0, wide.view) == Code::kShape);
  CHECK(run(shape, 0, a.x.view) == Code::kDtype);
  CHECK(run(shape, 0, packed.view) == Code::kOk);
  CHECK(run(shape, 0, short_one.view) == Code::kShape);
  CHECK(run(shape, 0, single.view) == Code::kDtype);
  shape.start = 1;
  CHECK(run(shape, 0, gram.view) == Code::kOption);
  shape = a.shape;
  shape.kv_heads = 3;
  CHECK(run(shape, 0, gram.view) == Code::kOption);
  shape = a.shape;
  shape.head_dim = 5;
  CHECK(run(shape, 0, gram.view) == Code::kShape);
  CHECK(accumulate_head_grams(lanes.context, a.q.view, heads.view).ok());
  CHECK(accumulate_head_grams(lanes.context, a.q.view, gram.view).code == Code::kShape);
  CHECK(accumulate_head_grams(lanes.context, a.q.view, a.q.view).code == Code::kShape);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  CHECK(run(a.shape, 0, gram.view) == Code::kCancelled);
  CHECK(accumulate_head_grams(lanes.context, a.q.view, heads.view).code == Code::kCancelled);
}
