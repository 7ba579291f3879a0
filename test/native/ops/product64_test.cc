#include "ops/product64.h"

#include "../operands.h"
#include "kernels/gemm/gemm.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// Normal numbers, symmetric.
void fill_symmetric(Operand<double>& h, int64_t k, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j <= i; ++j)
      h[static_cast<size_t>(i * k + j)] = h[static_cast<size_t>(j * k + i)] = normal(random);
}

}  // namespace

LUTRA_TEST(product64, is_the_product_for_every_number_of_lanes) {
  struct Shape {
    int64_t n, m, k;
  };
  for (const Shape s : {Shape{1, 1, 1}, {3, 97, 129}, {97, 5, 300}, {100, 192, 513}, {13, 17, 0}, {0, 3, 3}}) {
    Operand<float> a({s.n, s.k});
    Operand<double> b({s.m, s.k}), one({s.n, s.m}), three({s.n, s.m});
    fill(a, Distribution::kNormal, 1);
    std::mt19937_64 random(2);
    std::normal_distribution<double> normal;
    for (size_t i = 0; i < b.count(); ++i) b[i] = normal(random);
    Lanes single(1), several(3);
    CHECK(product64(single.context, s.n, s.m, s.k, a.data(), b.data(), one.data(), s.m).ok());
    CHECK(product64(several.context, s.n, s.m, s.k, a.data(), b.data(), three.data(), s.m).ok());
    CHECK(one.same_bits(three));
    for (int64_t r = 0; r < s.n; ++r)
      for (int64_t c = 0; c < s.m; ++c) {
        double sum = 0, power = 0;
        for (int64_t i = 0; i < s.k; ++i) {
          const double term = double{a[static_cast<size_t>(r * s.k + i)]} * b[static_cast<size_t>(c * s.k + i)];
          sum += term;
          power += std::fabs(term);
        }
        CHECK_LE(std::fabs(one[static_cast<size_t>(r * s.m + c)] - sum), 1e-14 * power);
      }
  }
}

LUTRA_TEST(group_gram, takes_the_quadratic_form_apart) {
  struct Shape {
    int64_t n, k, group_size;
  };
  for (const Shape s : {Shape{1, 1, 1},
                        {5, 70, 32},
                        {2, 9, 1},
                        {97, 100, 16},
                        {3, 300, 300},
                        {4, 700, 256},
                        {3, 290, 160},
                        {2, 257, 128}}) {
    const int64_t groups = (s.k + s.group_size - 1) / s.group_size, stride = groups + 3,
                  row_stride = groups * stride + 5;
    Operand<double> h({s.k, s.k}), x({s.n, s.k}), one({s.n, row_stride}), three({s.n, row_stride});
    fill_symmetric(h, s.k, 3);
    std::mt19937_64 random(4);
    std::normal_distribution<double> normal;
    for (size_t i = 0; i < x.count(); ++i) x[i] = normal(random);
    Lanes single(1), several(3);
    for (Operand<double>* gram : {&one, &three})
      CHECK(group_gram(gram == &one ? single.context : several.context, s.n, x.data(),
                       Matrix64{h.data(), s.k, s.k, s.k}, s.group_size, gram->data(), row_stride, stride)
                .ok());
    for (int64_t r = 0; r < s.n; ++r)
      for (int64_t a = 0; a < groups; ++a)
        for (int64_t b = 0; b <= a; ++b) {
          double sum = 0, power = 0;
          for (int64_t i = a * s.group_size; i < std::min(s.k, (a + 1) * s.group_size); ++i)
            for (int64_t j = b * s.group_size; j < std::min(s.k, (b + 1) * s.group_size); ++j) {
              const double term = x[static_cast<size_t>(r * s.k + i)] * h[static_cast<size_t>(i * s.k + j)] *
                                  x[static_cast<size_t>(r * s.k + j)];
              sum += term;
              power += std::fabs(term);
            }
          const size_t at = static_cast<size_t>(r * row_stride + a * stride + b);
          CHECK_LE(std::fabs(one[at] - sum), 1e-13 * power);
          CHECK(one[at] == three[at]);
        }
  }
}

LUTRA_TEST(group_gram, ends_when_cancelled) {
  Lanes lanes(2);
  CancelToken cancel;
  cancel.cancel();
  lanes.context.cancel = &cancel;
  Operand<double> h({40, 40}), x({4, 40}), gram({4, 4});
  fill_symmetric(h, 40, 3);
  std::fill_n(x.data(), x.count(), 1.0);
  CHECK(group_gram(lanes.context, 4, x.data(), Matrix64{h.data(), 40, 40, 40}, 20, gram.data(), 4, 2).code ==
        Code::kCancelled);
}
