// Several weights with one x, in one call and prepared: the bits of the products alone.
#include <algorithm>

#include "lut_gemm_cases.h"
#include "ops/lut_prepared.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr Mode kModes[] = {Mode::kExact, Mode::kAccurate, Mode::kFast};
constexpr int64_t kCols = 352;

// Like the q, k and v of a block: rows of their own, one with a sub-branch, one with offsets of another kind.
struct Three {
  explicit Three(int64_t tokens, int bits = 3) {
    for (int64_t i = 0; i < 3; ++i) {
      LutCase problem;
      const OffsetKind offset = i == 1 ? OffsetKind::kZeroCode : OffsetKind::kReal;
      problem.layout = make_layout(i == 0 ? 210 : 65 - i, kCols, 32, bits, WeightKind::kUniform, offset, Dtype::kF16);
      problem.tokens = tokens;
      problem.rank = i == 0 ? 0 : i * 5;
      problem.seed = static_cast<uint64_t>(i + 1);
      operands.push_back(std::make_unique<LutOperands>(problem));
      weights.push_back(operands.back()->view());
      y.push_back(operands.back()->y());
    }
  }
  TensorView x() const { return operands[0]->x(); }
  void poison() {
    for (auto& one : operands) one->poison_y();
  }
  std::vector<float> result(size_t i) const { return {operands[i]->y_data(), operands[i]->y_data() + y[i].elements()}; }

  std::vector<std::unique_ptr<LutOperands>> operands;
  std::vector<PackedView> weights;
  std::vector<TensorView> y;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && !std::memcmp(a.data(), b.data(), a.size() * sizeof(float));
}

}  // namespace

LUTRA_TEST(lut_gemm, weights_of_one_call_give_the_bits_of_each_alone) {
  ThreadPool pool(3);
  for (bool invariant : {false, true})
    for (Mode mode : kModes)
      for (int64_t tokens : {1, 2, 9, 33, 300}) {
        Three three(tokens);
        Context context;
        context.pool = &pool;
        const LutOptions options(mode, invariant);
        std::vector<std::vector<float>> alone;
        for (size_t i = 0; i < 3; ++i) {
          CHECK(lut_gemm(context, three.weights[i], three.x(), three.y[i], options).ok());
          alone.push_back(three.result(i));
        }
        three.poison();
        CHECK(lut_gemm(context, three.weights, three.x(), three.y, options).ok());
        for (size_t i = 0; i < 3; ++i) CHECK(same_bits(three.result(i), alone[i]));

        // Prepared: in any order, after x has gone, and again for another x.
        LutPrepared prepared;
        CHECK(prepared.multiply(context, 0, three.y[0]).code == Code::kOption);
        CHECK(prepared.prepare(context, three.weights, three.x(), options).ok());
        const std::vector<float> x(three.operands[0]->x_data(), three.operands[0]->x_data() + tokens * kCols);
        std::fill_n(three.operands[0]->x_data(), tokens * kCols, NAN);
        three.poison();
        for (size_t i : {2, 0, 1, 2}) {
          CHECK(prepared.multiply(context, i, three.y[i]).ok());
          CHECK(same_bits(three.result(i), alone[i]));
        }
        std::transform(x.begin(), x.end(), three.operands[0]->x_data(), [](float v) { return v * 2; });
        CHECK(prepared.prepare(context, three.weights, three.x(), options).ok());
        CHECK(prepared.multiply(context, 1, three.y[1]).ok());
        for (float& v : alone[1]) v *= 2;
        CHECK(same_bits(three.result(1), alone[1]));
      }
}

LUTRA_TEST(lut_gemm, misuse_of_several_weights_is_refused) {
  Three three(2);
  Context context = one_lane();
  const auto refused = [&](std::vector<PackedView> weights, std::vector<TensorView> y, Code code) {
    return lut_gemm(context, weights, three.x(), y, Mode::kExact).code == code;
  };
  CHECK(refused(three.weights, three.y, Code::kOk));
  CHECK(refused({}, {}, Code::kOption));
  CHECK(refused(three.weights, {three.y[0], three.y[1]}, Code::kOption));
  CHECK(refused(three.weights, {three.y[0], three.y[1], three.y[1]}, Code::kShape));
  TensorView inside = three.y[1];
  inside.data = three.y[0].as<float>() + 3;
  CHECK(refused(three.weights, {three.y[0], inside, three.y[2]}, Code::kOption));
  const Three wider(2, 4);
  CHECK(refused({three.weights[0], wider.weights[1]}, {three.y[0], three.y[1]}, Code::kOption));
  LutPrepared prepared;
  CHECK(prepared.prepare(context, {}, three.x(), Mode::kExact).code == Code::kOption);
  CHECK(prepared.prepare(context, {three.weights[0], wider.weights[1]}, three.x(), Mode::kExact).code == Code::kOption);
  CHECK(prepared.prepare(context, three.weights, three.x(), Mode::kExact).ok());
  CHECK(prepared.multiply(context, 3, three.y[0]).code == Code::kOption);
  CHECK(prepared.multiply(context, 0, three.y[1]).code == Code::kShape);
}
