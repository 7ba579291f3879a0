#include "quantize/column_order.h"

#include <vector>

#include "harness.h"

namespace lutra::test {

namespace {

template <typename T>
TensorView view(T* data, Dtype dtype, int64_t rows, int64_t cols) {
  TensorView tensor{const_cast<std::remove_const_t<T>*>(data), dtype, 2, {rows, cols}};
  return tensor;
}
TensorView row(int32_t* data, int64_t n) { return TensorView{data, Dtype::kI32, 1, {n}}; }

}  // namespace

LUTRA_TEST(column_order, prepared_hessian_is_permuted_damped_and_free_of_dead_columns) {
  ThreadPool pool(3);
  Context context;
  context.pool = &pool;
  for (const int64_t k : {1, 2, 17, 33, 70}) {
    Guarded<double> hessian(static_cast<size_t>(k * k)), prepared(static_cast<size_t>(k * k));
    Guarded<int32_t> order(static_cast<size_t>(k));
    const int64_t dead = k / 2;
    for (int64_t i = 0; i < k; ++i) {
      order[i] = static_cast<int32_t>((i * 3 + 1) % k);
      if (k % 3 == 0) order[i] = static_cast<int32_t>(k - 1 - i);
      for (int64_t j = 0; j < k; ++j)
        hessian[i * k + j] =
            i == dead || j == dead ? 0.0 : static_cast<double>(std::min(i, j) * 100 + std::max(i, j) + 1);
    }
    const TensorView h = view(hessian.data(), Dtype::kF64, k, k), p = view(prepared.data(), Dtype::kF64, k, k);
    CHECK(prepare_hessian(context, h, row(order.data(), k), 0.25, p).ok());
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < k; ++j) {
        double expected = hessian[order[i] * k + order[j]];
        if (i == j) expected = (order[i] == dead ? 1.0 : expected) + 0.25;
        CHECK(prepared[i * k + j] == expected);
      }
    Guarded<double> diagonal(static_cast<size_t>(k));
    CHECK(hessian_diagonal(context, h, TensorView{diagonal.data(), Dtype::kF64, 1, {k}}).ok());
    for (int64_t i = 0; i < k; ++i) CHECK(diagonal[i] == hessian[i * k + i]);
  }
}

LUTRA_TEST(column_order, gathering_back_by_the_inverse_order_restores_the_matrix) {
  ThreadPool pool(2);
  Context context;
  context.pool = &pool;
  const int64_t m = 37, k = 41;
  Guarded<float> w(m * k), there(m * k), back(m * k);
  Guarded<uint8_t> codes(m * k), moved(m * k);
  Guarded<int32_t> order(k), inverse(k);
  fill(w.data(), m * k, Distribution::kNormal, 7);
  for (int64_t i = 0; i < m * k; ++i) codes[i] = static_cast<uint8_t>(i % 251);
  for (int64_t j = 0; j < k; ++j) {
    order[j] = static_cast<int32_t>((j * 7 + 3) % k);
    inverse[order[j]] = static_cast<int32_t>(j);
  }
  CHECK(gather_columns(context, view(w.data(), Dtype::kF32, m, k), row(order.data(), k),
                       view(there.data(), Dtype::kF32, m, k))
            .ok());
  CHECK(there[0] == w[3]);
  CHECK(gather_columns(context, view(there.data(), Dtype::kF32, m, k), row(inverse.data(), k),
                       view(back.data(), Dtype::kF32, m, k))
            .ok());
  CHECK(std::memcmp(back.data(), w.data(), sizeof(float) * m * k) == 0);
  order[5] = -1;
  CHECK(gather_columns(context, view(codes.data(), Dtype::kU8, m, k), row(order.data(), k),
                       view(moved.data(), Dtype::kU8, m, k))
            .ok());
  for (int64_t r = 0; r < m; ++r)
    for (int64_t j = 0; j < k; ++j) CHECK(moved[r * k + j] == (j == 5 ? 0 : codes[r * k + order[j]]));
}

LUTRA_TEST(column_order, refuses_column_numbers_and_operands_that_do_not_fit) {
  ThreadPool pool(1);
  Context context;
  context.pool = &pool;
  double h[4] = {1, 0, 0, 1}, out[4];
  float w[4] = {1, 2, 3, 4}, y[4];
  int32_t past[2] = {0, 2}, below[2] = {0, -2}, skipped[2] = {0, -1};
  const TensorView hv = view(h, Dtype::kF64, 2, 2), ov = view(out, Dtype::kF64, 2, 2);
  CHECK(prepare_hessian(context, hv, row(past, 2), 0, ov).code == Code::kOption);
  CHECK(prepare_hessian(context, hv, row(skipped, 2), 0, ov).code == Code::kOption);
  CHECK(prepare_hessian(context, hv, row(skipped, 1), 0, ov).code == Code::kShape);
  CHECK(prepare_hessian(context, view(h, Dtype::kF64, 1, 4), row(past, 2), 0, ov).code == Code::kShape);
  CHECK(gather_columns(context, view(w, Dtype::kF32, 2, 2), row(below, 2), view(y, Dtype::kF32, 2, 2)).code ==
        Code::kOption);
  CHECK(gather_columns(context, view(w, Dtype::kF32, 2, 2), row(past, 2), view(y, Dtype::kF32, 2, 2)).code ==
        Code::kOption);
  CHECK(gather_columns(context, view(w, Dtype::kF32, 2, 2), row(skipped, 2), view(y, Dtype::kF32, 1, 2)).code ==
        Code::kShape);
}

}  // namespace lutra::test
