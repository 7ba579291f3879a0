#include "quantize/quadratic_form.h"

#include <vector>

#include "harness.h"
#include "quantize/magnitude.h"

namespace lutra::test {

namespace {

template <typename T>
TensorView view(T* data, Dtype dtype, int64_t rows, int64_t cols) {
  return TensorView{data, dtype, 2, {rows, cols}};
}

// H = sum of outer products of random vectors with one strong direction, as activations have them.
std::vector<double> gram(int64_t k) {
  std::vector<double> hessian(static_cast<size_t>(k * k), 0.0);
  std::vector<float> x(static_cast<size_t>(k));
  for (uint64_t t = 0; t < 24; ++t) {
    fill(x.data(), x.size(), t % 2 ? Distribution::kOutlier : Distribution::kNormal, 100 + t);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) hessian[i * k + j] += static_cast<double>(x[i]) * static_cast<double>(x[j]);
  }
  return hessian;
}

}  // namespace

LUTRA_TEST(quadratic_form, weighted_squares_are_summed_in_fp64_for_any_number_of_lanes) {
  const int64_t m = 37, k = 301;
  Guarded<float> x(static_cast<size_t>(m * k)), weights(static_cast<size_t>(m * k));
  fill(x.data(), static_cast<size_t>(m * k), Distribution::kOutlier, 1);
  fill(weights.data(), static_cast<size_t>(m * k), Distribution::kUniform, 2);
  double expected = 0.0, size = 0.0;
  for (int64_t i = 0; i < m * k; ++i) {
    const double one = static_cast<double>(weights[i]) * x[i] * x[i];
    expected += one;
    size += std::fabs(one);
  }
  double first = 0.0;
  for (const int lanes : {1, 2, 3}) {
    ThreadPool pool(lanes);
    Context context;
    context.pool = &pool;
    double value = -1.0;
    CHECK(weighted_squares(context, view(x.data(), Dtype::kF32, m, k), view(weights.data(), Dtype::kF32, m, k), &value)
              .ok());
    CHECK_LE(std::fabs(value - expected), 1e-12 * size);
    if (lanes == 1) first = value;
    CHECK(value == first);
    CHECK(weighted_squares(context, view(x.data(), Dtype::kF32, m, k), view(weights.data(), Dtype::kF32, m, k - 1),
                           &value)
              .code == Code::kShape);
  }
}

LUTRA_TEST(quadratic_form, equals_the_trace_in_fp64_for_any_number_of_lanes) {
  for (const int64_t m : {1, 5, 40})
    for (const int64_t k : {1, 19, 256, 300}) {
      Guarded<float> x(static_cast<size_t>(m * k));
      fill(x.data(), static_cast<size_t>(m * k), Distribution::kNormal, static_cast<uint64_t>(m * 1000 + k));
      std::vector<double> hessian = gram(k);
      double expected = 0.0;
      for (int64_t r = 0; r < m; ++r)
        for (int64_t i = 0; i < k; ++i)
          for (int64_t j = 0; j < k; ++j)
            expected += static_cast<double>(x[r * k + i]) * hessian[i * k + j] * static_cast<double>(x[r * k + j]);
      double first = 0.0;
      for (const int lanes : {1, 2, 3}) {
        ThreadPool pool(lanes);
        Context context;
        context.pool = &pool;
        double value = -1.0;
        CHECK(
            quadratic_form(context, view(x.data(), Dtype::kF32, m, k), view(hessian.data(), Dtype::kF64, k, k), &value)
                .ok());
        CHECK_LE(std::fabs(value - expected), 1e-4 * expected);
        if (lanes == 1) first = value;
        CHECK(value == first);
      }
    }
}

LUTRA_TEST(quadratic_form, magnitudes_are_those_of_all_elements) {
  ThreadPool pool(2);
  Context context;
  context.pool = &pool;
  const int64_t m = 21, k = 45;
  Guarded<float> x(m * k);
  for (int64_t i = 0; i < m * k; ++i) x[i] = i % k % 2 ? 0.5f : 0.0f;
  double sum = 0.0;
  CHECK(sum_of_squares(context, view(x.data(), Dtype::kF32, m, k), &sum).ok());
  CHECK(sum == 0.25 * static_cast<double>(m * (k / 2)));
  double largest = 0.0;
  x[m * k - 1] = -7.5f;
  CHECK(largest_magnitude(context, view(x.data(), Dtype::kF32, m, k), &largest).ok());
  CHECK(largest == 7.5);
}

}  // namespace lutra::test
