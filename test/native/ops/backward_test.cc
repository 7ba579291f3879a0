// Each operator of the way back against its reference, on shapes that split into many parts, and what it refuses.
#include "ops/backward.h"

#include "../block_reference.h"
#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

namespace {

Numbers wide(Operand<float>& operand) { return Numbers(operand.data(), operand.data() + operand.count()); }

double distance(Operand<float>& found, const Numbers& expected) {
  return nmse(found.data(), expected.data(), expected.size());
}

}  // namespace

LUTRA_TEST(ops, linear_backward_agrees_with_the_reference) {
  Lanes one(1), three(3);
  const int64_t shapes[][3] = {{1, 1, 1}, {5, 7, 3}, {33, 100, 17}, {300, 130, 98}, {17, 800, 40}};
  for (const auto& [n, m, k] : shapes) {
    Operand<float> x({n, k}), w({m, k}), dy({n, m}), dx({n, k}), dw({m, k}), dx3({n, k}), dw3({m, k});
    fill(x, Distribution::kNormal, 1);
    fill(w, Distribution::kNormal, 2);
    fill(dy, Distribution::kOutlier, 3);
    CHECK(linear_backward_input(one.context, dy.view, w.view, dx.view).ok());
    CHECK(linear_backward_weight(one.context, dy.view, x.view, dw.view).ok());
    CHECK(linear_backward_input(three.context, dy.view, w.view, dx3.view).ok());
    CHECK(linear_backward_weight(three.context, dy.view, x.view, dw3.view).ok());
    CHECK(dx.same_bits(dx3) && dw.same_bits(dw3));
    Numbers input, weight;
    linear_backward_reference(wide(dy), wide(x), wide(w), n, m, k, input, weight);
    CHECK_LE(distance(dx, input), 1e-12);
    CHECK_LE(distance(dw, weight), 1e-12);
  }
}

LUTRA_TEST(ops, linear_backward_of_no_tokens_is_zero) {
  Lanes lanes(2);
  Operand<float> dy({0, 3}), x({0, 4}), dw({3, 4});
  CHECK(linear_backward_weight(lanes.context, dy.view, x.view, dw.view).ok());
  for (size_t i = 0; i < dw.count(); ++i) CHECK(dw[i] == 0.0f);
}

LUTRA_TEST(ops, rms_norm_backward_agrees_with_the_reference) {
  Lanes one(1), three(3);
  for (const int64_t n : {1, 70})
    for (const int64_t d : {1, 17, 130, 1000}) {
      Operand<float> x({n, d}), w({d}), dy({n, d}), dx({n, d}), dw({d}), dx3({n, d}), dw3({d});
      fill(x, Distribution::kOutlier, 1);
      fill(w, Distribution::kNormal, 2);
      fill(dy, Distribution::kNormal, 3);
      const float epsilon = static_cast<float>(kReferenceEpsilon);
      CHECK(rms_norm_backward_input(one.context, x.view, w.view, epsilon, dy.view, dx.view).ok());
      CHECK(rms_norm_backward_weight(one.context, x.view, epsilon, dy.view, dw.view).ok());
      CHECK(rms_norm_backward_weight(three.context, x.view, epsilon, dy.view, dw3.view).ok());
      Numbers input, weight;
      norm_backward_reference(wide(dy), wide(x), wide(w), n, d, input, weight);
      // In place: the same bits.
      CHECK(rms_norm_backward_input(three.context, x.view, w.view, epsilon, dy.view, dy.view).ok());
      CHECK(dx.same_bits(dy) && dw.same_bits(dw3));
      CHECK_LE(distance(dw, weight), 1e-12);
      // A single channel has no direction left: what remains is epsilon's share.
      if (d > 1) CHECK_LE(distance(dx, input), 1e-11);
    }
}

LUTRA_TEST(ops, rope_backward_turns_back) {
  Lanes two(2);
  const int64_t n = 40, heads = 30, head_dim = 34;
  Operand<float> x({n, heads * head_dim}), angles({n + 3, head_dim});
  fill(x, Distribution::kNormal, 1);
  for (int64_t t = 0; t < n + 3; ++t)
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      const float angle = 0.1f * static_cast<float>(t * (i + 1));
      angles[static_cast<size_t>(t * head_dim + i)] = std::cos(angle);
      angles[static_cast<size_t>(t * head_dim + head_dim / 2 + i)] = std::sin(angle);
    }
  const Numbers before = wide(x);
  CHECK(rope(two.context, x.view, angles.view, head_dim, 0).ok());
  CHECK(rope_backward(two.context, x.view, angles.view, head_dim).ok());
  CHECK_LE(distance(x, before), 1e-12);
  CHECK(rope_backward(two.context, x.view, angles.view, head_dim + 1).code == Code::kOption);
  CHECK(rope_backward(two.context, angles.view, angles.view, head_dim).code == Code::kOption);
}

LUTRA_TEST(ops, attention_backward_agrees_with_the_reference) {
  Lanes one(1), three(3);
  const BlockShape shapes[] = {{1, 0, 2, 1, 5, 0, 0},   {3, 0, 4, 4, 7, 0, 0},    {37, 0, 6, 2, 33, 0, 0},
                               {70, 0, 4, 1, 16, 0, 9}, {130, 0, 2, 2, 20, 0, 0}, {21, 0, 3, 3, 8, 0, 1}};
  for (const BlockShape& b : shapes) {
    Operand<float> q({b.n, b.q_width()}), k({b.n, b.kv_width()}), v({b.n, b.kv_width()}), dy({b.n, b.q_width()});
    Operand<float> dq({b.n, b.q_width()}), dk({b.n, b.kv_width()}), dv({b.n, b.kv_width()});
    Operand<float> dq3({b.n, b.q_width()}), dk3({b.n, b.kv_width()}), dv3({b.n, b.kv_width()});
    fill(q, Distribution::kNormal, 1);
    fill(k, Distribution::kNormal, 2);
    fill(v, Distribution::kNormal, 3);
    fill(dy, Distribution::kNormal, 4);
    const AttentionShape shape{b.heads, b.kv_heads, b.head_dim, 0, b.window};
    const auto run = [&](Lanes& lanes, Operand<float>& gq, Operand<float>& gk, Operand<float>& gv) {
      return attention_backward(lanes.context, q.view, k.view, v.view, shape, dy.view, gq.view, gk.view, gv.view);
    };
    CHECK(run(one, dq, dk, dv).ok());
    CHECK(run(three, dq3, dk3, dv3).ok());
    CHECK(dq.same_bits(dq3) && dk.same_bits(dk3) && dv.same_bits(dv3));
    Numbers eq, ek, ev;
    attention_backward_reference(b, wide(q), wide(k), wide(v), wide(dy), eq, ek, ev);
    CHECK_LE(distance(dv, ev), 1e-12);
    // Where every query sees one key, the scores cannot matter and their derivatives are rounding alone.
    if (b.n == 1 || b.window == 1) continue;
    CHECK_LE(distance(dq, eq), 1e-11);
    CHECK_LE(distance(dk, ek), 1e-11);
  }
}

LUTRA_TEST(ops, backward_refuses) {
  Lanes lanes(1);
  Context& c = lanes.context;
  Operand<float> a({4, 8}), b({4, 8}), d({4, 8}), e({4, 8}), f({4, 8}), g({4, 8}), h({4, 8}), w({8, 8}), line({8});
  Operand<float> tall({5, 8}), short_line({7});
  Operand<double> losses({4});
  for (Operand<float>* operand : {&a, &b, &d, &e, &f, &g, &h, &w, &line}) fill(*operand, Distribution::kNormal, 1);
  CHECK(linear_backward_input(c, a.view, w.view, tall.view).code == Code::kShape);
  CHECK(linear_backward_input(c, a.view, w.view, a.view).code == Code::kOption);
  CHECK(linear_backward_weight(c, a.view, tall.view, w.view).code == Code::kShape);
  CHECK(linear_backward_weight(c, a.view, b.view, line.view).code == Code::kShape);
  CHECK(rms_norm_backward_input(c, a.view, short_line.view, 0.0f, b.view, d.view).code == Code::kShape);
  CHECK(rms_norm_backward_input(c, a.view, line.view, -1.0f, b.view, d.view).code == Code::kOption);
  CHECK(rms_norm_backward_input(c, a.view, line.view, 0.0f, b.view, a.view).code == Code::kOption);
  CHECK(rms_norm_backward_weight(c, a.view, 0.0f, b.view, short_line.view).code == Code::kShape);
  CHECK(swiglu_backward(c, a.view, b.view, d.view, d.view, e.view).ok());
  CHECK(swiglu_backward(c, a.view, b.view, d.view, e.view, e.view).code == Code::kOption);
  CHECK(swiglu_backward(c, a.view, b.view, d.view, a.view, e.view).code == Code::kOption);
  CHECK(swiglu_backward(c, a.view, tall.view, d.view, e.view, f.view).code == Code::kShape);
  CHECK(squared_error(c, a.view, tall.view, losses.view, b.view).code == Code::kShape);
  CHECK(squared_error(c, a.view, b.view, line.view, d.view).code == Code::kDtype);
  CHECK(squared_error(c, a.view, b.view, losses.view, a.view).code == Code::kOption);
  const auto attend = [&](const AttentionShape& shape, Operand<float>& dq) {
    return attention_backward(c, a.view, b.view, d.view, shape, e.view, dq.view, g.view, h.view);
  };
  CHECK(attend({2, 2, 4, 0, 0}, f).ok());
  CHECK(attend({2, 2, 4, 1, 0}, f).code == Code::kOption);
  CHECK(attend({2, 2, 4, 0, -1}, f).code == Code::kOption);
  CHECK(attend({3, 2, 4, 0, 0}, f).code == Code::kOption);
  CHECK(attend({2, 1, 4, 0, 0}, f).code == Code::kShape);
  CHECK(attend({2, 2, 4, 0, 0}, a).code == Code::kOption);
  CHECK(attend({2, 2, 4, 0, 0}, g).code == Code::kOption);
  CHECK(attend({2, 2, 4, 0, 0}, tall).code == Code::kShape);
}

LUTRA_TEST(ops, backward_stops_when_cancelled) {
  Lanes lanes(2);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  Operand<float> a({4, 8}), b({4, 8}), d({4, 8}), e({4, 8}), f({4, 8}), g({4, 8}), h({4, 8}), w({8, 8});
  const AttentionShape shape{2, 2, 4, 0, 0};
  Context& c = lanes.context;
  CHECK(linear_backward_input(c, a.view, w.view, b.view).code == Code::kCancelled);
  CHECK(linear_backward_weight(c, a.view, b.view, w.view).code == Code::kCancelled);
  CHECK(swiglu_backward(c, a.view, b.view, d.view, e.view, f.view).code == Code::kCancelled);
  CHECK(attention_backward(c, a.view, b.view, d.view, shape, e.view, f.view, g.view, h.view).code == Code::kCancelled);
}
