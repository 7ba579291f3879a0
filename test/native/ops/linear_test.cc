#include "ops/linear.h"

#include "../operands.h"
#include "kernels/gemm/gemm.h"
#include "kernels/narrow_gemm/narrow_gemm.h"
#include "ops/product.h"

using namespace lutra;
using namespace lutra::test;

namespace {

struct Shape {
  int64_t n, m, k;
};

std::vector<Shape> shapes() {
  if (quick()) return {{1, 5, 9}, {3, 33, 65}, {17, 97, 129}, {40, 100, 257}};
  std::vector<Shape> all;
  for (const int64_t n : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 25, 31, 33, 65, 127, 385, 400})
    for (const Shape& s : {Shape{0, 1, 1}, {0, 31, 33}, {0, 97, 127}, {0, 193, 300}, {0, 64, 513}})
      all.push_back({n, s.m, s.k});
  return all;
}

template <typename Weight>
void check_linear(Dtype dtype, Distribution d) {
  Lanes one(1), two(2), three(3);
  for (const Shape& s : shapes()) {
    Operand<float> x({s.n, s.k});
    Operand<Weight> w({s.m, s.k}, dtype);
    fill(x, d, 11);
    fill(w, Distribution::kNormal, 12);
    std::vector<double> expected(static_cast<size_t>(s.n * s.m));
    if constexpr (sizeof(Weight) == 4) {
      gemm_reference(x.data(), s.k, w.data(), s.k, s.n, s.m, s.k, expected.data());
    } else {
      narrow_gemm_reference(x.data(), s.k, w.data(), s.k, dtype == Dtype::kBF16, s.n, s.m, s.k, expected.data());
    }
    Operand<float> y1({s.n, s.m}), y2({s.n, s.m}), y3({s.n, s.m});
    CHECK(linear(one.context, x.view, w.view, y1.view).ok());
    CHECK(linear(two.context, x.view, w.view, y2.view).ok());
    CHECK(linear(three.context, x.view, w.view, y3.view).ok());
    CHECK_LE(nmse(y1.data(), expected.data(), expected.size()), 1e-12);
    CHECK(y1.same_bits(y2));
    CHECK(y1.same_bits(y3));
  }
}

}  // namespace

LUTRA_TEST(ops, linear_f32) {
  check_linear<float>(Dtype::kF32, Distribution::kNormal);
  check_linear<float>(Dtype::kF32, Distribution::kOutlier);
}
LUTRA_TEST(ops, linear_f16) { check_linear<uint16_t>(Dtype::kF16, Distribution::kNormal); }
LUTRA_TEST(ops, linear_bf16) { check_linear<uint16_t>(Dtype::kBF16, Distribution::kNormal); }

LUTRA_TEST(ops, product_with_int8_rows) {
  Lanes one(1), three(3);
  for (const Shape& s : shapes()) {
    Operand<float> x({s.n, s.k}), scales({s.m}), y1({s.n, s.m}), y3({s.n, s.m});
    Guarded<int8_t> w(static_cast<size_t>(s.m * s.k));
    fill(x, Distribution::kNormal, 11);
    fill(scales, Distribution::kUniform, 12);
    for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i * 7919 % 256);
    std::vector<double> expected(y1.count());
    narrow_gemm_reference_i8(x.data(), s.k, w.data(), s.k, scales.data(), s.n, s.m, s.k, expected.data());
    const RightOperand right{.data = w.data(), .stride = s.k, .row_scales = scales.data()};
    CHECK(product(one.context, s.n, s.m, s.k, x.data(), s.k, right, y1.data(), s.m).ok());
    CHECK(product(three.context, s.n, s.m, s.k, x.data(), s.k, right, y3.data(), s.m).ok());
    CHECK_LE(nmse(y1.data(), expected.data(), expected.size()), 1e-12);
    CHECK(y1.same_bits(y3));
  }
}

LUTRA_TEST(ops, linear_of_nothing) {
  Lanes lanes(2);
  Operand<float> x({3, 0}), w({4, 0}), y({3, 4});
  CHECK(linear(lanes.context, x.view, w.view, y.view).ok());
  for (size_t i = 0; i < y.count(); ++i) CHECK(y[i] == 0.0f);
  Operand<float> none({0, 5}), w5({4, 5}), no_y({0, 4});
  CHECK(linear(lanes.context, none.view, w5.view, no_y.view).ok());
}

LUTRA_TEST(ops, linear_refuses) {
  Lanes lanes(1);
  Operand<float> x({3, 8}), w({4, 8}), y({3, 4}), wide({4, 9}), flat({8}), tall({2, 4}), thick({3, 5});
  Operand<int32_t> ints({3, 8});
  Operand<double> doubles({4, 8});
  Context& c = lanes.context;
  CHECK(linear(c, flat.view, w.view, y.view).code == Code::kShape);
  CHECK(linear(c, x.view, flat.view, y.view).code == Code::kShape);
  CHECK(linear(c, x.view, w.view, flat.view).code == Code::kShape);
  CHECK(linear(c, ints.view, w.view, y.view).code == Code::kDtype);
  CHECK(linear(c, x.view, doubles.view, y.view).code == Code::kDtype);
  CHECK(linear(c, x.view, w.view, ints.view).code == Code::kDtype);
  CHECK(linear(c, x.view, w.view, tall.view).code == Code::kShape);
  CHECK(linear(c, x.view, w.view, thick.view).code == Code::kShape);
  const Status status = linear(c, x.view, wide.view, y.view);
  CHECK(status.code == Code::kShape && status.found == 9 && status.expected == 8);
  TensorView negative = x.view;
  negative.shape[0] = -1;
  CHECK(linear(c, negative, w.view, y.view).code == Code::kShape);
  TensorView huge = x.view;
  huge.shape[0] = int64_t{1} << 62;
  CHECK(linear(c, huge, w.view, y.view).code == Code::kShape);
  TensorView hollow = x.view;
  hollow.data = nullptr;
  CHECK(linear(c, hollow, w.view, y.view).code == Code::kShape);
}

LUTRA_TEST(ops, linear_stops_when_cancelled) {
  Lanes lanes(2);
  CancelToken token;
  token.cancel();
  lanes.context.cancel = &token;
  Operand<float> x({40, 8}), w({4, 8}), y({40, 4});
  CHECK(linear(lanes.context, x.view, w.view, y.view).code == Code::kCancelled);
  Operand<double> gram({8, 8});
  CHECK(accumulate_gram(lanes.context, x.view, gram.view).code == Code::kCancelled);
}

LUTRA_TEST(ops, add_bias_adds_to_every_row) {
  Lanes lanes(2);
  Operand<float> y({5, 37}), bias({37}), narrow({36}), expected({5, 37});
  fill(y, Distribution::kNormal, 1);
  fill(bias, Distribution::kNormal, 2);
  for (size_t i = 0; i < y.count(); ++i) expected[i] = y[i] + bias[i % 37];
  CHECK(add_bias(lanes.context, y.view, bias.view).ok());
  CHECK(y.same_bits(expected));
  CHECK(add_bias(lanes.context, y.view, narrow.view).code == Code::kShape);
  CHECK(add_bias(lanes.context, y.view, y.view).code == Code::kShape);
  CHECK(add_bias(lanes.context, bias.view, bias.view).code == Code::kShape);
}

LUTRA_TEST(ops, gram_is_the_sum_of_outer_products) {
  Lanes one(1), three(3);
  for (const int64_t k : quick() ? std::vector<int64_t>{5, 65} : std::vector<int64_t>{1, 2, 31, 33, 191, 193, 400})
    for (const int64_t n : quick() ? std::vector<int64_t>{3, 600} : std::vector<int64_t>{1, 17, 255, 513, 2100}) {
      Operand<float> x({n, k});
      fill(x, Distribution::kOutlier, static_cast<uint64_t>(n + k));
      Operand<double> gram({k, k}), again({k, k});
      std::vector<double> expected(static_cast<size_t>(k * k));
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < k; ++j) {
          gram[static_cast<size_t>(i * k + j)] = again[static_cast<size_t>(i * k + j)] =
              0.25 * static_cast<double>(i + j);
          double sum = 0.25 * static_cast<double>(i + j);
          for (int64_t t = 0; t < n; ++t)
            sum += static_cast<double>(x[static_cast<size_t>(t * k + i)]) * x[static_cast<size_t>(t * k + j)];
          expected[static_cast<size_t>(i * k + j)] = sum;
        }
      CHECK(accumulate_gram(one.context, x.view, gram.view).ok());
      CHECK(accumulate_gram(three.context, x.view, again.view).ok());
      CHECK(gram.same_bits(again));
      double error = 0, power = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        error += (gram[i] - expected[i]) * (gram[i] - expected[i]);
        power += expected[i] * expected[i];
        const size_t mirrored = i % static_cast<size_t>(k) * static_cast<size_t>(k) + i / static_cast<size_t>(k);
        CHECK(gram[i] == gram[mirrored]);
      }
      CHECK_LE(error / power, 1e-11);  // 256 products are summed in fp32
    }
}

LUTRA_TEST(ops, gram_refuses) {
  Lanes lanes(1);
  Operand<float> x({3, 8}), single({8, 8}), flat({8});
  Operand<double> gram({8, 8}), narrow({8, 7}), low({7, 8}), line({8});
  Context& c = lanes.context;
  CHECK(accumulate_gram(c, x.view, single.view).code == Code::kDtype);
  CHECK(accumulate_gram(c, gram.view, gram.view).code == Code::kDtype);
  CHECK(accumulate_gram(c, x.view, narrow.view).code == Code::kShape);
  CHECK(accumulate_gram(c, x.view, low.view).code == Code::kShape);
  CHECK(accumulate_gram(c, flat.view, gram.view).code == Code::kShape);
  CHECK(accumulate_gram(c, x.view, line.view).code == Code::kShape);
}
