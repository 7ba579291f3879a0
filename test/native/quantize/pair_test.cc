#include "quantize/pair.h"

#include <array>
#include <vector>

#include "../operands.h"
#include "quantize/storage.h"

using namespace lutra;
using namespace lutra::test;

namespace {

TensorView bytes(Operand<uint8_t>& operand) {
  TensorView view = operand.view;
  view.dtype = Dtype::kI8;
  return view;
}

}  // namespace

LUTRA_TEST(quantize, pairs_are_rounded_as_they_are_stored) {
  const int64_t n = 19, k = 37;
  Operand<float> x({n, k}), once({n, k}), twice({n, k});
  fill(x, Distribution::kOutlier, 2);
  for (int64_t j = 0; j < k; ++j) x[static_cast<size_t>(3 * k + j)] = 0.0f;
  Lanes lanes(3);
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    CHECK(round_rows(lanes.context, dtype, x.view, once.view).ok());
    CHECK(round_rows(lanes.context, dtype, once.view, twice.view).ok());
    CHECK(once.same_bits(twice));
    for (size_t i = 0; i < x.count(); ++i) CHECK(once[i] == stored_value(dtype, static_cast<double>(x[i])));
  }
  Operand<uint8_t> codes({n, k});
  Operand<float> scales({n});
  CHECK(round_rows(lanes.context, Dtype::kI8, x.view, once.view).ok());
  CHECK(store_rows_int8(lanes.context, x.view, bytes(codes), scales.view).ok());
  for (int64_t row = 0; row < n; ++row)
    for (int64_t j = 0; j < k; ++j) {
      const size_t at = static_cast<size_t>(row * k + j);
      const float scale = scales[static_cast<size_t>(row)];
      CHECK(once[at] == scale * static_cast<float>(static_cast<int8_t>(codes[at])));
      CHECK_LE(std::fabs(static_cast<double>(once[at]) - x[at]), 0.5000001 * static_cast<double>(scale));
    }
  // In place.
  CHECK(round_rows(lanes.context, Dtype::kI8, x.view, x.view).ok());
  CHECK(x.same_bits(once));
}

LUTRA_TEST(quantize, what_a_pair_leaves_is_the_difference) {
  for (const auto& [m, k, rank] : std::vector<std::array<int64_t, 3>>{{1, 16, 1}, {5, 40, 3}, {33, 100, 20}}) {
    Operand<float> w({m, k}), b({m, rank}), a({rank, k}), rest({m, k}), again({m, k});
    fill(w, Distribution::kNormal, 1);
    fill(b, Distribution::kNormal, 2);
    fill(a, Distribution::kNormal, 3);
    Lanes one(1), three(3);
    CHECK(subtract_pair(one.context, w.view, b.view, a.view, rest.view).ok());
    CHECK(subtract_pair(three.context, w.view, b.view, a.view, again.view).ok());
    CHECK(rest.same_bits(again));
    for (int64_t r = 0; r < m; ++r)
      for (int64_t j = 0; j < k; ++j) {
        double expected = w[static_cast<size_t>(r * k + j)];
        for (int64_t i = 0; i < rank; ++i)
          expected -= static_cast<double>(b[static_cast<size_t>(r * rank + i)]) * a[static_cast<size_t>(i * k + j)];
        CHECK_LE(std::fabs(rest[static_cast<size_t>(r * k + j)] - expected), 1e-5);
      }
  }
}

LUTRA_TEST(quantize, pairs_that_do_not_fit_are_refused) {
  Lanes lanes(1);
  Operand<float> w({4, 6}), b({4, 2}), a({2, 6}), rest({4, 6}), wide_b({4, 5}), wide_a({5, 6}), scales({4});
  Operand<uint8_t> codes({4, 6});
  fill(w, Distribution::kNormal, 1);
  fill(b, Distribution::kNormal, 2);
  fill(a, Distribution::kNormal, 3);
  CHECK(subtract_pair(lanes.context, w.view, wide_b.view, wide_a.view, rest.view).code == Code::kOption);
  CHECK(subtract_pair(lanes.context, w.view, b.view, wide_a.view, rest.view).code == Code::kShape);
  CHECK(subtract_pair(lanes.context, w.view, b.view, a.view, w.view).code == Code::kOption);
  CHECK(round_rows(lanes.context, Dtype::kF32, w.view, rest.view).code == Code::kDtype);
  CHECK(round_rows(lanes.context, Dtype::kF16, w.view, a.view).code == Code::kShape);
  CHECK(store_rows_int8(lanes.context, w.view, codes.view, scales.view).code == Code::kDtype);
  w[3] = w[9] = 1e6f;
  const Status status = round_rows(lanes.context, Dtype::kF16, w.view, rest.view);
  CHECK(status.code == Code::kOption && status.found == 2);
  CHECK(round_rows(lanes.context, Dtype::kBF16, w.view, rest.view).ok());
}
