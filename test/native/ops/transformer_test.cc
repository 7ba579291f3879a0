#include "ops/transformer.h"

#include <limits>

#include "../operands.h"
#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"

using namespace lutra;
using namespace lutra::test;

LUTRA_TEST(ops, embedding_picks_rows) {
  Lanes lanes(2);
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    Operand<uint16_t> table({7, 33}, dtype);
    fill(table, Distribution::kNormal, 5);
    Operand<int32_t> ids({4});
    const int32_t wanted[4] = {6, 0, 3, 6};
    std::copy(wanted, wanted + 4, ids.data());
    Operand<float> y({4, 33});
    CHECK(embedding(lanes.context, table.view, ids.view, y.view).ok());
    for (size_t t = 0; t < 4; ++t)
      for (size_t i = 0; i < 33; ++i) {
        const uint16_t bits = table[static_cast<size_t>(wanted[t]) * 33 + i];
        CHECK(y[t * 33 + i] == (dtype == Dtype::kF16 ? half_to_float(bits) : bfloat16_to_float(bits)));
      }
    ids[2] = 7;
    const Status high = embedding(lanes.context, table.view, ids.view, y.view);
    CHECK(high.code == Code::kOption && high.found == 7 && high.expected == 7);
    ids[2] = -1;
    CHECK(embedding(lanes.context, table.view, ids.view, y.view).code == Code::kOption);
  }
}

LUTRA_TEST(ops, embedding_refuses) {
  Lanes lanes(1);
  Operand<float> table({7, 5}), y({2, 5}), narrow({2, 4}), tall({3, 5});
  Operand<int32_t> ids({2});
  ids[0] = ids[1] = 0;
  Context& c = lanes.context;
  CHECK(embedding(c, ids.view, ids.view, y.view).code == Code::kShape);
  CHECK(embedding(c, table.view, table.view, y.view).code == Code::kShape);
  CHECK(embedding(c, table.view, ids.view, narrow.view).code == Code::kShape);
  CHECK(embedding(c, table.view, ids.view, tall.view).code == Code::kShape);
  Operand<float> float_ids({2});
  CHECK(embedding(c, table.view, float_ids.view, y.view).code == Code::kDtype);
  Operand<double> doubles({7, 5});
  CHECK(embedding(c, doubles.view, ids.view, y.view).code == Code::kDtype);
}

LUTRA_TEST(ops, rms_norm_normalises) {
  Lanes one(1), three(3);
  for (const int64_t d : {1, 3, 17, 64, 129}) {
    Operand<float> x({9, d}), weight({d}), y({9, d}), again({9, d});
    Operand<uint16_t> half({d}, Dtype::kBF16);
    fill(x, Distribution::kOutlier, 3);
    fill(half, Distribution::kNormal, 4);
    for (size_t i = 0; i < weight.count(); ++i) weight[i] = bfloat16_to_float(half[i]);
    CHECK(rms_norm(one.context, x.view, weight.view, 1e-5f, y.view).ok());
    CHECK(rms_norm(three.context, x.view, half.view, 1e-5f, again.view).ok());
    CHECK(y.same_bits(again));
    std::vector<double> expected(static_cast<size_t>(9 * d));
    for (int64_t t = 0; t < 9; ++t)
      rms_norm_reference(x.data() + t * d, weight.data(), 1e-5f, expected.data() + t * d, d);
    CHECK_LE(nmse(y.data(), expected.data(), expected.size()), 1e-12);
    CHECK(rms_norm(one.context, x.view, weight.view, 1e-5f, x.view).ok());
    CHECK(x.same_bits(y));
    CHECK(rms_norm(one.context, x.view, weight.view, -1.0f, y.view).code == Code::kOption);
    CHECK(rms_norm(one.context, x.view, x.view, 1e-5f, y.view).code == Code::kShape);
    Operand<float> wide({9, d + 1});
    CHECK(rms_norm(one.context, x.view, weight.view, 1e-5f, wide.view).code == Code::kShape);
    CHECK(rms_norm(one.context, wide.view, weight.view, 1e-5f, wide.view).code == Code::kShape);
  }
}

LUTRA_TEST(ops, rope_turns_pairs) {
  Lanes one(1), two(2);
  for (const int64_t head_dim : {2, 6, 34, 64, 128}) {
    const int64_t heads = 3, n = 5, start = 2, positions = 7;
    Operand<float> x({n, heads * head_dim}), angles({positions, head_dim}), again({n, heads * head_dim});
    fill(x, Distribution::kNormal, 8);
    for (int64_t p = 0; p < positions; ++p)
      for (int64_t i = 0; i < head_dim / 2; ++i) {
        angles[static_cast<size_t>(p * head_dim + i)] = std::cos(0.3f * static_cast<float>(p * (i + 1)));
        angles[static_cast<size_t>(p * head_dim + head_dim / 2 + i)] = std::sin(0.3f * static_cast<float>(p * (i + 1)));
      }
    std::copy(x.data(), x.data() + x.count(), again.data());
    std::vector<double> expected(x.count());
    for (int64_t t = 0; t < n; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const float* row = angles.data() + (start + t) * head_dim;
        const int64_t at = (t * heads + h) * head_dim;
        rope_reference(x.data() + at, row, row + head_dim / 2, head_dim / 2, expected.data() + at);
      }
    CHECK(rope(one.context, x.view, angles.view, head_dim, start).ok());
    CHECK(rope(two.context, again.view, angles.view, head_dim, start).ok());
    CHECK(x.same_bits(again));
    CHECK_LE(nmse(x.data(), expected.data(), expected.size()), 1e-12);
    CHECK(rope(one.context, x.view, angles.view, head_dim, 3).code == Code::kOption);
    CHECK(rope(one.context, x.view, angles.view, head_dim, -1).code == Code::kOption);
    CHECK(rope(one.context, x.view, angles.view, head_dim + 1, 0).code != Code::kOk);
    CHECK(rope(one.context, x.view, angles.view, 0, 0).code == Code::kOption);
  }
}

LUTRA_TEST(ops, cache_append_copies_and_refuses) {
  Lanes lanes(2);
  Operand<float> x({3, 10}), cache({8, 10}), narrow({8, 9});
  fill(x, Distribution::kNormal, 1);
  CHECK(cache_append(lanes.context, x.view, cache.view, 5).ok());
  CHECK(!std::memcmp(cache.data() + 50, x.data(), 30 * sizeof(float)));
  CHECK(std::isnan(cache[49]));
  const Status status = cache_append(lanes.context, x.view, cache.view, 6);
  CHECK(status.code == Code::kOption && status.found == 6 && status.expected == 5);
  CHECK(cache_append(lanes.context, x.view, cache.view, -1).code == Code::kOption);
  CHECK(cache_append(lanes.context, x.view, cache.view, INT64_MAX).code == Code::kOption);
  CHECK(cache_append(lanes.context, x.view, narrow.view, 0).code == Code::kShape);
}

LUTRA_TEST(ops, elementwise) {
  Lanes one(1), three(3);
  const int64_t n = quick() ? 1001 : 100001;
  Operand<float> gate({n}), up({n}), y({n}), again({n}), other({n - 1});
  fill(gate, Distribution::kNormal, 1);
  fill(up, Distribution::kNormal, 2);
  CHECK(swiglu(one.context, gate.view, up.view, y.view).ok());
  CHECK(swiglu(three.context, gate.view, up.view, again.view).ok());
  CHECK(y.same_bits(again));
  std::vector<double> expected(static_cast<size_t>(n));
  swiglu_reference(gate.data(), up.data(), expected.data(), n);
  CHECK_LE(nmse(y.data(), expected.data(), expected.size()), 1e-12);
  CHECK(swiglu(one.context, gate.view, up.view, gate.view).ok());
  CHECK(gate.same_bits(y));
  CHECK(add(three.context, up.view, y.view).ok());
  for (size_t i = 0; i < y.count(); ++i) CHECK(y[i] == again[i] + up[i]);
  CHECK(add(one.context, other.view, y.view).code == Code::kShape);
  CHECK(swiglu(one.context, gate.view, other.view, y.view).code == Code::kShape);
  Operand<int32_t> ints({n});
  CHECK(add(one.context, ints.view, y.view).code == Code::kDtype);
  CHECK(swiglu(one.context, gate.view, ints.view, y.view).code == Code::kDtype);
}

LUTRA_TEST(ops, softmax_sums_to_one) {
  Lanes one(1), three(3);
  for (const int64_t d : {1, 2, 7, 16, 33, 1000}) {
    Operand<float> x({50, d}), y({50, d}), again({50, d});
    fill(x, Distribution::kOutlier, 9);
    CHECK(softmax(one.context, x.view, y.view).ok());
    CHECK(softmax(three.context, x.view, again.view).ok());
    CHECK(y.same_bits(again));
    std::vector<double> expected(y.count());
    for (int64_t t = 0; t < 50; ++t) {
      softmax_reference(x.data() + t * d, expected.data() + t * d, d);
      double sum = 0;
      for (int64_t i = 0; i < d; ++i) sum += y[static_cast<size_t>(t * d + i)];
      CHECK_LE(std::fabs(sum - 1), 1e-6);
    }
    CHECK_LE(nmse(y.data(), expected.data(), expected.size()), 1e-12);
    CHECK(softmax(one.context, x.view, x.view).ok());
    CHECK(x.same_bits(y));
  }
  Operand<float> x({4, 5}), y({4, 4});
  CHECK(softmax(one.context, x.view, y.view).code == Code::kShape);
}

namespace {

struct AttentionCase {
  int64_t n, heads, kv_heads, head_dim, start, window;
};

void check_attention(const AttentionCase& a) {
  const int64_t capacity = a.start + a.n + 3;
  const int64_t kv_width = a.kv_heads * a.head_dim;
  Operand<float> q({a.n, a.heads * a.head_dim}), keys({capacity, kv_width}), values({capacity, kv_width});
  Operand<float> y({a.n, a.heads * a.head_dim}), again({a.n, a.heads * a.head_dim});
  fill(q, Distribution::kNormal, 1);
  // Rows behind the last valid one stay NaN: whoever reads them shows.
  fill(keys.data(), static_cast<size_t>((a.start + a.n) * kv_width), Distribution::kNormal, 2);
  fill(values.data(), static_cast<size_t>((a.start + a.n) * kv_width), Distribution::kNormal, 3);
  const AttentionShape shape{a.heads, a.kv_heads, a.head_dim, a.start, a.window};
  Lanes one(1), three(3);
  CHECK(attention(one.context, q.view, keys.view, values.view, shape, y.view).ok());
  CHECK(attention(three.context, q.view, keys.view, values.view, shape, again.view).ok());
  CHECK(y.same_bits(again));
  std::vector<double> expected(y.count());
  std::vector<double> weights(static_cast<size_t>(capacity));
  for (int64_t t = 0; t < a.n; ++t)
    for (int64_t h = 0; h < a.heads; ++h) {
      const int64_t end = a.start + t + 1;
      const int64_t begin = a.window > 0 && end > a.window ? end - a.window : 0;
      const int64_t at = begin * kv_width + h / (a.heads / a.kv_heads) * a.head_dim;
      attention_reference(q.data() + (t * a.heads + h) * a.head_dim, keys.data() + at, values.data() + at, kv_width,
                          end - begin, a.head_dim, 1.0 / std::sqrt(static_cast<double>(a.head_dim)), weights.data(),
                          expected.data() + (t * a.heads + h) * a.head_dim);
    }
  CHECK_LE(nmse(y.data(), expected.data(), expected.size()), 1e-12);
}

}  // namespace

LUTRA_TEST(ops, attention_agrees_with_the_reference) {
  std::vector<AttentionCase> cases = {{1, 1, 1, 1, 0, 0},    {1, 8, 2, 16, 30, 0},  {3, 4, 4, 7, 0, 0},
                                      {17, 6, 2, 33, 5, 0},  {9, 4, 1, 64, 300, 0}, {20, 3, 3, 24, 0, 1},
                                      {20, 2, 1, 24, 10, 5}, {33, 2, 2, 8, 0, 40}};
  if (!quick())
    for (const int64_t n : {1, 2, 5, 16, 31, 64, 129})
      for (const int64_t window : {0, 3, 17, 100})
        for (const int64_t start : {0, 1, 255, 511}) cases.push_back({n, 4, 2, 20 + n % 5 * 16, start, window});
  for (const AttentionCase& a : cases) check_attention(a);
}

// A later token must not move an earlier row, not even by being NaN.
LUTRA_TEST(ops, attention_is_causal) {
  Lanes lanes(1);
  const AttentionShape shape{4, 2, 8, 0, 0};
  Operand<float> q({12, 32}), keys({12, 16}), values({12, 16}), y({12, 32}), again({12, 32});
  fill(q, Distribution::kNormal, 1);
  fill(keys, Distribution::kNormal, 2);
  fill(values, Distribution::kNormal, 3);
  CHECK(attention(lanes.context, q.view, keys.view, values.view, shape, y.view).ok());
  for (size_t i = 6 * 16; i < 12 * 16; ++i) keys[i] = values[i] = std::numeric_limits<float>::quiet_NaN();
  CHECK(attention(lanes.context, q.view, keys.view, values.view, shape, again.view).ok());
  CHECK(!std::memcmp(y.data(), again.data(), 6 * 32 * sizeof(float)));
  CHECK(std::isnan(again[6 * 32]));
}

LUTRA_TEST(ops, attention_refuses) {
  Lanes lanes(1);
  Operand<float> q({3, 32}), keys({5, 16}), values({5, 16}), y({3, 32}), low({4, 16}), narrow({5, 15});
  const auto run = [&](const AttentionShape& shape) {
    return attention(lanes.context, q.view, keys.view, values.view, shape, y.view);
  };
  CHECK(run({4, 2, 8, 3, 0}).code == Code::kOption);
  CHECK(run({4, 2, 8, -1, 0}).code == Code::kOption);
  CHECK(run({4, 2, 8, 0, -1}).code == Code::kOption);
  CHECK(run({4, 3, 8, 0, 0}).code == Code::kOption);
  CHECK(run({0, 2, 8, 0, 0}).code == Code::kOption);
  CHECK(run({4, 0, 8, 0, 0}).code == Code::kOption);
  CHECK(run({4, 2, 0, 0, 0}).code == Code::kOption);
  CHECK(run({4, 2, 4, 0, 0}).code == Code::kShape);
  CHECK(run({4, 4, 8, 0, 0}).code == Code::kShape);
  CHECK(run({int64_t{1} << 40, int64_t{1} << 40, int64_t{1} << 40, 0, 0}).code == Code::kOption);
  const AttentionShape shape{4, 2, 8, 0, 0};
  CHECK(attention(lanes.context, q.view, keys.view, low.view, shape, y.view).code == Code::kShape);
  CHECK(attention(lanes.context, q.view, narrow.view, narrow.view, shape, y.view).code == Code::kShape);
  CHECK(attention(lanes.context, q.view, keys.view, values.view, shape, keys.view).code == Code::kShape);
  Operand<uint16_t> half({5, 16});
  CHECK(attention(lanes.context, q.view, half.view, values.view, shape, y.view).code == Code::kDtype);
}
