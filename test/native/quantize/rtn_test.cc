#include "quantize/rtn.h"

#include "problem.h"

using namespace lutra;
using namespace lutra::test;

namespace {

GridOptions options_of(int bits, int64_t group_size, bool symmetric, bool search, Dtype dtype) {
  return {bits, group_size, symmetric, search, dtype};
}

template <typename Body>
void each_grid(Body&& body) {
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int64_t group_size : {-1, 16, 32, 50})
      for (const bool symmetric : {false, true})
        for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16, Dtype::kF32})
          body(options_of(bits, group_size, symmetric, false, dtype));
}

double metric(Problem& p, int64_t r, int64_t g, Operand<uint8_t>& codes) {
  double sum = 0;
  for (int64_t j = 0; j < p.k; ++j)
    if (p.group_of[static_cast<size_t>(j)] == g)
      sum += std::pow(std::fabs(p.weight(r, j) - p.value(r, j, codes[static_cast<size_t>(r * p.k + j)])), 2.4);
  return sum;
}

}  // namespace

LUTRA_TEST(quantize, rtn_stays_within_half_a_step) {
  each_grid([](const GridOptions& options) {
    Problem p(3, 77, options, 21);
    for (size_t i = 0; i < 40; ++i) p.w[77 + i] = std::fabs(p.w[77 + i]) + 1;  // an all-positive group
    for (size_t i = 0; i < 40; ++i) p.w[154 + i] = -std::fabs(p.w[154 + i]) - 1;
    p.fit();
    Operand<uint8_t> codes({p.rows, p.k});
    CHECK(p.round(codes).ok());
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t j = 0; j < p.k; ++j) {
        const uint8_t code = codes[static_cast<size_t>(r * p.k + j)];
        CHECK(code <= largest_code(options.bits));
        CHECK_LE(std::fabs(p.weight(r, j) - p.value(r, j, code)), p.scale(r, j) * (0.5 + 1e-9));
        CHECK(p.zero(r, j) == std::floor(p.zero(r, j)) && p.zero(r, j) >= 0 &&
              p.zero(r, j) <= largest_code(options.bits));
        const float scale = static_cast<float>(p.scale(r, j));
        if (options.scale_dtype == Dtype::kF16) CHECK(half_to_float(float_to_half(scale)) == scale);
        if (options.scale_dtype == Dtype::kBF16) CHECK(bfloat16_to_float(float_to_bfloat16(scale)) == scale);
        // No other code is nearer.
        for (const int other : {code - 1, code + 1})
          if (other >= 0 && other <= largest_code(options.bits))
            CHECK_LE(std::fabs(p.weight(r, j) - p.value(r, j, code)),
                     std::fabs(p.weight(r, j) - p.value(r, j, static_cast<uint8_t>(other))) + 1e-12);
      }
  });
}

LUTRA_TEST(quantize, rtn_gives_zero_for_zeros) {
  each_grid([](const GridOptions& options) {
    Problem p(2, 60, options, 22);
    for (size_t i = 0; i < 60; ++i) p.w[i] = i % 2 ? 0.0f : -0.0f;
    p.fit();
    Operand<uint8_t> codes({2, 60});
    CHECK(p.round(codes).ok());
    for (int64_t j = 0; j < 60; ++j) {
      CHECK(p.value(0, j, codes[static_cast<size_t>(j)]) == 0.0);
      CHECK(p.scale(0, j) > 0);
    }
  });
}

LUTRA_TEST(quantize, clip_search_is_never_worse_on_its_metric) {
  for (const int bits : {2, 3, 4})
    for (const bool symmetric : {false, true}) {
      Problem plain(8, 128, options_of(bits, 32, symmetric, false, Dtype::kF16), 23);
      Problem searched(8, 128, options_of(bits, 32, symmetric, true, Dtype::kF16), 23);
      Operand<uint8_t> a({8, 128}), b({8, 128});
      CHECK(plain.round(a).ok());
      CHECK(searched.round(b).ok());
      int better = 0;
      for (int64_t r = 0; r < 8; ++r)
        for (int64_t g = 0; g < 4; ++g) {
          CHECK_LE(metric(searched, r, g, b), metric(plain, r, g, a) * (1 + 1e-5));
          better += metric(searched, r, g, b) < 0.999 * metric(plain, r, g, a);
        }
      CHECK(better > 0);
    }
}

LUTRA_TEST(quantize, fit_grid_reports_scales_that_f16_cannot_hold) {
  Problem p(2, 32, options_of(4, 16, false, false, Dtype::kF16), 24);
  for (size_t i = 0; i < 16; ++i) p.w[i] *= 1e7f;
  for (size_t i = 16; i < 32; ++i) p.w[i] *= 1e-7f;
  int64_t subnormal = -1;
  const Status status = fit_grid(p.lanes.context, p.options, p.w.view, p.scales.view, p.zeros.view, &subnormal);
  CHECK(status.code == Code::kOption && status.found == 1);
  CHECK(subnormal == 1);
  for (const Dtype wider : {Dtype::kBF16, Dtype::kF32}) {
    p.options.scale_dtype = wider;
    CHECK(fit_grid(p.lanes.context, p.options, p.w.view, p.scales.view, p.zeros.view, &subnormal).ok());
    CHECK(subnormal == 0);
  }
}

LUTRA_TEST(quantize, rtn_refuses) {
  Problem p(3, 20, options_of(4, 8, false, false, Dtype::kF16), 25);
  Context& c = p.lanes.context;
  const auto fit = [&](const GridOptions& options) {
    return fit_grid(c, options, p.w.view, p.scales.view, p.zeros.view, nullptr).code;
  };
  CHECK(fit(options_of(0, 8, false, false, Dtype::kF16)) == Code::kOption);
  CHECK(fit(options_of(9, 8, false, false, Dtype::kF16)) == Code::kOption);
  CHECK(fit(options_of(4, 0, false, false, Dtype::kF16)) == Code::kOption);
  CHECK(fit(options_of(4, 16, false, false, Dtype::kF16)) == Code::kShape);
  CHECK(fit(options_of(4, 8, false, false, Dtype::kF64)) == Code::kDtype);
  p.w[7] = INFINITY;
  CHECK(fit(p.options) == Code::kNonFinite);
}
