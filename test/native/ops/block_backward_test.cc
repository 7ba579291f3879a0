// The derivative of a whole block: the fp64 reference against finite differences, the operators against the reference.
#include "../block_reference.h"
#include "../operands.h"
#include "ops/backward.h"
#include "ops/linear.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr BlockShape kShapes[] = {
    {7, 12, 2, 2, 6, 20, 0}, {9, 16, 4, 2, 4, 10, 0}, {11, 10, 6, 1, 2, 33, 3}, {1, 8, 2, 1, 4, 8, 0}};

Numbers random_numbers(int64_t count, uint64_t seed, double scale) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  Numbers numbers(static_cast<size_t>(count));
  // Rounded to fp32, so that the operators can be given the same numbers.
  for (double& number : numbers) number = static_cast<float>(scale * normal(random));
  return numbers;
}

struct Problem {
  BlockShape b;
  BlockTensors w;
  Numbers cos_sin, x, target;

  explicit Problem(const BlockShape& shape) : b(shape) {
    const double narrow = 1 / std::sqrt(static_cast<double>(b.d)), wide = 1 / std::sqrt(static_cast<double>(b.ff));
    w.norm1 = random_numbers(b.d, 1, 1);
    w.q = random_numbers(b.q_width() * b.d, 2, 2 * narrow);
    w.k = random_numbers(b.kv_width() * b.d, 3, 2 * narrow);
    w.v = random_numbers(b.kv_width() * b.d, 4, narrow);
    w.o = random_numbers(b.d * b.q_width(), 5, narrow);
    w.norm2 = random_numbers(b.d, 6, 1);
    w.gate = random_numbers(b.ff * b.d, 7, narrow);
    w.up = random_numbers(b.ff * b.d, 8, narrow);
    w.down = random_numbers(b.d * b.ff, 9, wide);
    x = random_numbers(b.n * b.d, 10, 1);
    target = random_numbers(b.n * b.d, 11, 2);
    for (int64_t t = 0; t < b.n; ++t)
      for (int64_t i = 0; i < b.head_dim; ++i) {
        const double angle = 0.7 * static_cast<double>(t * (i % (b.head_dim / 2) + 1));
        cos_sin.push_back(static_cast<float>(i < b.head_dim / 2 ? std::cos(angle) : std::sin(angle)));
      }
  }
  double loss() const { return block_loss(block_reference(b, w, cos_sin, x), target); }
  BlockTensors gradients() const {
    return block_backward_reference(b, w, cos_sin, x, block_reference(b, w, cos_sin, x), target);
  }
};

struct Floats : Operand<float> {
  using Operand::Operand;
  Floats(std::initializer_list<int64_t> shape, const Numbers& numbers) : Operand(shape) {
    for (size_t i = 0; i < count(); ++i) (*this)[i] = static_cast<float>(numbers[i]);
  }
};

// The operators in the order in which a block's forward and backward are recorded; gradients come back in fp64.
BlockTensors run_operators(Context& c, const Problem& p, double* loss) {
  const BlockShape& b = p.b;
  const float epsilon = static_cast<float>(kReferenceEpsilon);
  const AttentionShape shape{b.heads, b.kv_heads, b.head_dim, 0, b.window};
  const int64_t n = b.n, d = b.d, ff = b.ff, qw = b.q_width(), kw = b.kv_width();
  Floats norm1({d}, p.w.norm1), wq({qw, d}, p.w.q), wk({kw, d}, p.w.k), wv({kw, d}, p.w.v), wo({d, qw}, p.w.o);
  Floats norm2({d}, p.w.norm2), wg({ff, d}, p.w.gate), wu({ff, d}, p.w.up), wd({d, ff}, p.w.down);
  Floats x({n, d}, p.x), target({n, d}, p.target), angles({n, b.head_dim}, p.cos_sin);
  Floats h1({n, d}), q({n, qw}), k({n, kw}), v({n, kw}), a({n, qw}), r({n, d}), h2({n, d}), g({n, ff}), u({n, ff});
  Floats m({n, ff}), y({n, d});
  CHECK(rms_norm(c, x.view, norm1.view, epsilon, h1.view).ok());
  CHECK(linear(c, h1.view, wq.view, q.view).ok());
  CHECK(linear(c, h1.view, wk.view, k.view).ok());
  CHECK(linear(c, h1.view, wv.view, v.view).ok());
  CHECK(rope(c, q.view, angles.view, b.head_dim, 0).ok());
  CHECK(rope(c, k.view, angles.view, b.head_dim, 0).ok());
  CHECK(attention(c, q.view, k.view, v.view, shape, a.view).ok());
  CHECK(linear(c, a.view, wo.view, r.view).ok());
  CHECK(add(c, x.view, r.view).ok());
  CHECK(rms_norm(c, r.view, norm2.view, epsilon, h2.view).ok());
  CHECK(linear(c, h2.view, wg.view, g.view).ok());
  CHECK(linear(c, h2.view, wu.view, u.view).ok());
  CHECK(swiglu(c, g.view, u.view, m.view).ok());
  CHECK(linear(c, m.view, wd.view, y.view).ok());
  CHECK(add(c, r.view, y.view).ok());

  Operand<double> losses({n});
  Floats dy({n, d}), dm({n, ff}), du({n, ff}), dh({n, d}), part({n, d}), da({n, qw}), dq({n, qw}), dk({n, kw});
  Floats dv({n, kw}), dnorm1({d}), dwq({qw, d}), dwk({kw, d}), dwv({kw, d}), dwo({d, qw}), dnorm2({d}), dwg({ff, d});
  Floats dwu({ff, d}), dwd({d, ff});
  CHECK(squared_error(c, y.view, target.view, losses.view, dy.view).ok());
  CHECK(linear_backward_weight(c, dy.view, m.view, dwd.view).ok());
  CHECK(linear_backward_input(c, dy.view, wd.view, dm.view).ok());
  CHECK(swiglu_backward(c, g.view, u.view, dm.view, dm.view, du.view).ok());
  CHECK(linear_backward_weight(c, dm.view, h2.view, dwg.view).ok());
  CHECK(linear_backward_weight(c, du.view, h2.view, dwu.view).ok());
  CHECK(linear_backward_input(c, dm.view, wg.view, dh.view).ok());
  CHECK(linear_backward_input(c, du.view, wu.view, part.view).ok());
  CHECK(add(c, part.view, dh.view).ok());
  CHECK(rms_norm_backward_weight(c, r.view, epsilon, dh.view, dnorm2.view).ok());
  CHECK(rms_norm_backward_input(c, r.view, norm2.view, epsilon, dh.view, dh.view).ok());
  CHECK(add(c, dh.view, dy.view).ok());
  CHECK(linear_backward_weight(c, dy.view, a.view, dwo.view).ok());
  CHECK(linear_backward_input(c, dy.view, wo.view, da.view).ok());
  CHECK(attention_backward(c, q.view, k.view, v.view, shape, da.view, dq.view, dk.view, dv.view).ok());
  CHECK(rope_backward(c, dq.view, angles.view, b.head_dim).ok());
  CHECK(rope_backward(c, dk.view, angles.view, b.head_dim).ok());
  CHECK(linear_backward_weight(c, dq.view, h1.view, dwq.view).ok());
  CHECK(linear_backward_weight(c, dk.view, h1.view, dwk.view).ok());
  CHECK(linear_backward_weight(c, dv.view, h1.view, dwv.view).ok());
  CHECK(linear_backward_input(c, dq.view, wq.view, dh.view).ok());
  for (auto [gradient, weight] : {std::pair{&dk, &wk}, std::pair{&dv, &wv}}) {
    CHECK(linear_backward_input(c, gradient->view, weight->view, part.view).ok());
    CHECK(add(c, part.view, dh.view).ok());
  }
  CHECK(rms_norm_backward_weight(c, x.view, epsilon, dh.view, dnorm1.view).ok());
  *loss = 0;
  for (size_t t = 0; t < losses.count(); ++t) *loss += losses[t] / static_cast<double>(n);
  const auto wide = [](Floats& f) { return Numbers(f.data(), f.data() + f.count()); };
  return {wide(dnorm1), wide(dwq), wide(dwk), wide(dwv), wide(dwo), wide(dnorm2), wide(dwg), wide(dwu), wide(dwd)};
}

}  // namespace

LUTRA_TEST(ops, block_reference_agrees_with_finite_differences) {
  for (const BlockShape& shape : kShapes) {
    Problem p(shape);
    BlockTensors gradients = p.gradients();
    const std::vector<Numbers*> tensors = p.w.all(), slopes = gradients.all();
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Numbers start = *tensors[i];
      const Numbers direction = random_numbers(static_cast<int64_t>(start.size()), 100 + i, 1);
      const auto moved = [&](double step) {
        for (size_t j = 0; j < start.size(); ++j) (*tensors[i])[j] = start[j] + step * direction[j];
        const double loss = p.loss();
        *tensors[i] = start;
        return loss;
      };
      const double step = 1e-5;
      double expected = 0, size = 0;
      for (size_t j = 0; j < start.size(); ++j) {
        expected += (*slopes[i])[j] * direction[j];
        size += std::fabs((*slopes[i])[j] * direction[j]);
      }
      CHECK_LE(std::fabs((moved(step) - moved(-step)) / (2 * step) - expected), 1e-6 * size + 1e-12);
    }
  }
}

LUTRA_TEST(ops, block_backward_agrees_with_the_reference) {
  Lanes one(1), three(3);
  for (const BlockShape& shape : kShapes) {
    const Problem p(shape);
    double loss = 0, again_loss = 0;
    BlockTensors found = run_operators(one.context, p, &loss);
    BlockTensors again = run_operators(three.context, p, &again_loss);
    BlockTensors expected = p.gradients();
    CHECK(loss == again_loss);
    CHECK_LE(std::fabs(loss - p.loss()), 1e-6 * p.loss());
    for (size_t i = 0; i < found.all().size(); ++i) {
      CHECK(*found.all()[i] == *again.all()[i]);
      std::vector<float> narrow(found.all()[i]->begin(), found.all()[i]->end());
      // One token sees itself alone: its scores' derivatives are zero but for rounding.
      if (shape.n == 1 && (i == 1 || i == 2)) continue;
      CHECK_LE(nmse(narrow.data(), expected.all()[i]->data(), narrow.size()), 1e-10);
    }
  }
}

LUTRA_TEST(ops, block_loss_is_zero_at_its_target) {
  Lanes lanes(2);
  Problem p(kShapes[1]);
  // The reference's output as the target: what is left is the operators' rounding.
  double loss = 0;
  Numbers y = block_reference(p.b, p.w, p.cos_sin, p.x).y;
  p.target = y;
  run_operators(lanes.context, p, &loss);
  CHECK_LE(loss, 1e-12);
  Operand<float> same({3, 5}), dy({3, 5});
  Operand<double> losses({3});
  fill(same, Distribution::kNormal, 4);
  Operand<float> target({3, 5});
  std::copy(same.data(), same.data() + same.count(), target.data());
  CHECK(squared_error(lanes.context, same.view, target.view, losses.view, dy.view).ok());
  for (size_t i = 0; i < dy.count(); ++i) CHECK(dy[i] == 0.0f);
  for (size_t t = 0; t < losses.count(); ++t) CHECK(losses[t] == 0.0);
}
