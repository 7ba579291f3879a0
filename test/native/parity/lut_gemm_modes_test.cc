// What the accuracy modes promise: normalised error on the named distributions, the worst-case bound, misuse.
#include "lut_gemm_cases.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr Mode kModes[] = {Mode::kExact, Mode::kAccurate, Mode::kFast};

template <typename Body>
void each_version(Body&& body) {
  for (const LutGemmKernels* set : versions(lut_gemm_kernels)) body(*set);
}

LutCase case_of(int64_t rows, int64_t cols, int64_t group, int bits, WeightKind kind, OffsetKind offset) {
  LutCase c;
  c.layout = make_layout(rows, cols, group, bits, kind, offset, Dtype::kF16);
  return c;
}

// Sets every code of the first tile to its largest value, so that rounding errors of one sign add up.
void set_all_bits(LutOperands& operands, const PackedLayout& layout) {
  std::fill(operands.words(), operands.words() + layout.codes_words(), 0xffffffffu);
}

}  // namespace

// Modes are bounds on the mean over many outputs: no expected power here, the plain quotient.
LUTRA_TEST(lut_gemm, modes_hold_their_bound_on_every_distribution) {
  const int64_t cols = quick() ? 512 : 2048;
  for (int bits : {2, 3, 4})
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (OffsetKind offset : {OffsetKind::kNone, OffsetKind::kReal})
        for (int64_t group : {int64_t{16}, int64_t{128}, cols})
          for (Distribution d :
               {Distribution::kNormal, Distribution::kUniform, Distribution::kOutlier, Distribution::kConstant}) {
            LutCase problem = case_of(192, cols, group, bits, kind, offset);
            problem.distribution = d;
            problem.tokens = group == 128 && offset == OffsetKind::kReal ? 16 : 2;  // panels, tables
            LutOperands operands(problem);
            const std::vector<double> answer = operands.answer();
            each_version([&](const LutGemmKernels& set) {
              for (Mode mode : kModes) {
                Context context = one_lane();
                CHECK(lut_gemm_with(set, context, operands.view(), operands.x(), operands.y(), mode).ok());
                const double error = nmse(operands.y_data(), answer.data(), answer.size());
                if (error <= mode_limit(mode)) continue;
                char text[64];
                std::snprintf(text, sizeof text, " nmse %.3g", error);
                fail(__FILE__, __LINE__,
                     std::string(set.name) + " " + mode_name(mode) + " " + problem.describe() + text);
              }
            });
          }
}

// A constant x, or one of two values, gives tables few different entries: were one of them to fall between two steps,
// its roundings would add up, in every row alike, while weights around zero let the products themselves cancel. To what
// remains of them fp32 rounds by up to 2e-12, so exact mode is not asked.
LUTRA_TEST(lut_gemm, modes_hold_their_bound_where_all_entries_round_alike) {
  const int64_t cols = quick() ? 512 : 1024;
  for (int bits : {2, 3, 4})
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (int64_t tokens : {1, 9})
        for (float value : {1.0f, 0.37f, -0.37f})
          for (float other : {1.0f, -1.0f, 0.0f}) {
            LutCase problem = case_of(cols, cols, 128, bits, kind, OffsetKind::kReal);
            problem.tokens = tokens;
            problem.nearest = true;
            LutOperands operands(problem);
            std::mt19937_64 random(7);
            for (int64_t i = 0; i < tokens * cols; ++i)
              operands.x_data()[i] = random() % 2 == 0 ? value : value * other;
            const std::vector<double> answer = operands.answer();
            each_version([&](const LutGemmKernels& set) {
              for (Mode mode : {Mode::kAccurate, Mode::kFast}) {
                Context context = one_lane();
                CHECK(lut_gemm_with(set, context, operands.view(), operands.x(), operands.y(), mode).ok());
                const double error = nmse(operands.y_data(), answer.data(), answer.size());
                if (error <= mode_limit(mode)) continue;
                char text[96];
                std::snprintf(text, sizeof text, " of x %g and %g, nmse %.3g", static_cast<double>(value),
                              static_cast<double>(value * other), error);
                fail(__FILE__, __LINE__,
                     std::string(set.name) + " " + mode_name(mode) + " " + problem.describe() + text);
              }
            });
          }
}

// fp32 sums must not grow with the row: a constant x gives rounding errors of one sign.
LUTRA_TEST(lut_gemm, exact_mode_holds_on_long_rows) {
  const int64_t cols = quick() ? 2048 : 16384;
  for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
    for (int64_t group : {int64_t{16}, cols})
      for (Distribution d : {Distribution::kNormal, Distribution::kConstant})
        for (int64_t tokens : {1, 9}) {
          LutCase problem = case_of(quick() ? 16 : 48, cols, group, 3, kind, OffsetKind::kReal);
          problem.distribution = d;
          problem.tokens = tokens;
          LutOperands operands(problem);
          const std::vector<double> answer = operands.answer();
          each_version([&](const LutGemmKernels& set) {
            Context context = one_lane();
            CHECK(lut_gemm_with(set, context, operands.view(), operands.x(), operands.y(), Mode::kExact).ok());
            CHECK(nmse(operands.y_data(), answer.data(), answer.size()) <= mode_limit(Mode::kExact));
          });
        }
}

// Inputs whose every rounding is half a step and of one sign: the error comes near the bound and stays inside.
LUTRA_TEST(lut_gemm, the_bound_holds_for_the_worst_input) {
  for (int bits : {2, 3, 4}) {
    LutCase problem = case_of(64, 256, 64, bits, WeightKind::kUniform, OffsetKind::kZeroCode);
    LutOperands operands(problem);
    std::vector<uint8_t> zeros(static_cast<size_t>(problem.layout.offsets_elements()));
    set_all_bits(operands, problem.layout);
    PackedView view = operands.view();
    view.offsets = zeros.data();
    each_version([&](const LutGemmKernels& set) {
      for (Mode mode : {Mode::kAccurate, Mode::kFast})
        for (int spacing : {1, 4}) {
          const float limit = mode == Mode::kFast ? 127.0f : 32767.0f;
          float* x = operands.x_data();
          for (int k = 0; k < 256; ++k) x[k] = k % 64 == 0 ? limit * 2 : k % spacing == 0 ? 0.99f : 0.0f;
          std::vector<float> bound(64);
          Context context = one_lane();
          CHECK(lut_gemm_with(set, context, view, operands.x(), operands.y(), mode).ok());
          CHECK(
              lut_gemm_error_bound_with(set, context, view, operands.x(), {bound.data(), Dtype::kF32, 2, {1, 64}}, mode)
                  .ok());
          double exact = 0;
          for (int64_t r = 0; r < 64; ++r) {
            std::vector<double> weights(256);
            lut_gemm_reference_weights(lut_tile(view, 0), r, 0, 256, weights.data());
            exact = 0;
            for (size_t k = 0; k < 256; ++k) exact += weights[k] * static_cast<double>(x[k]);
            const double off = std::fabs(static_cast<double>(operands.y_data()[r]) - exact);
            CHECK_LE(off, static_cast<double>(bound[static_cast<size_t>(r)]));
          }
        }
    });
  }
}

// Every table entry and every rounded activation at its limit, every code at its largest: what narrow lanes must hold.
LUTRA_TEST(lut_gemm, no_lane_saturates) {
  for (int bits : {2, 3, 4})
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (int64_t tokens : {1, 9})
        for (float value : {1.0f, -1.0f}) {
          LutCase problem = case_of(64, 256, 256, bits, kind, OffsetKind::kReal);
          problem.tokens = tokens;
          LutOperands operands(problem);
          set_all_bits(operands, problem.layout);
          std::fill_n(operands.x_data(), tokens * 256, value);
          std::vector<double> exact(64);
          lut_gemm_reference(lut_tile(operands.view(), 0), operands.x_data(), exact.data());
          std::vector<float> bound(static_cast<size_t>(tokens * 64));
          each_version([&](const LutGemmKernels& set) {
            for (Mode mode : kModes) {
              Context context = one_lane();
              CHECK(lut_gemm_with(set, context, operands.view(), operands.x(), operands.y(), mode).ok());
              CHECK(lut_gemm_error_bound_with(set, context, operands.view(), operands.x(),
                                              {bound.data(), Dtype::kF32, 2, {tokens, 64}}, mode)
                        .ok());
              for (size_t i = 0; i < bound.size(); ++i)
                CHECK_LE(std::fabs(static_cast<double>(operands.y_data()[i]) - exact[i % 64]),
                         static_cast<double>(bound[i]));
            }
          });
        }
}

// Planes of 0.5 and 254.5: code 1 weighs 0.5 less the offset, 0, and an eighth bit cannot tell. With activations just
// over half a step both roundings act on the same product.
LUTRA_TEST(lut_gemm, the_bound_holds_where_weights_and_activations_round_together) {
  constexpr int64_t kTokens = 9;
  PackedView view;
  view.layout = make_layout(64, 64, 64, 2, WeightKind::kPlanes, OffsetKind::kReal, Dtype::kF32);
  view.layout.offset_dtype = Dtype::kF32;
  std::vector<uint32_t> codes(static_cast<size_t>(view.layout.codes_words()));  // [chunk][plane][64]
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = i / 64 % 2 == 0 ? 0xffffffffu : 0;
  std::vector<float> scales(128, 0.5f);
  std::fill(scales.begin() + 64, scales.end(), 254.5f);
  const std::vector<float> offsets(64, -0.5f);
  view.codes = codes.data();
  view.scales = scales.data();
  view.offsets = offsets.data();
  std::vector<float> x(kTokens * 64, 0.5001f);
  for (int64_t t = 0; t < kTokens; ++t) x[static_cast<size_t>(t * 64)] = 127.0f;
  std::vector<float> y(kTokens * 64);
  std::vector<float> bound(kTokens * 64);
  const TensorView xs = {x.data(), Dtype::kF32, 2, {kTokens, 64}};
  each_version([&](const LutGemmKernels& set) {
    for (Mode mode : kModes) {
      Context context = one_lane();
      CHECK(lut_gemm_with(set, context, view, xs, {y.data(), Dtype::kF32, 2, {kTokens, 64}}, mode).ok());
      const TensorView bounds = {bound.data(), Dtype::kF32, 2, {kTokens, 64}};
      CHECK(lut_gemm_error_bound_with(set, context, view, xs, bounds, mode).ok());
      for (size_t i = 0; i < y.size(); ++i) CHECK_LE(std::fabs(y[i]), bound[i]);  // the exact product is 0
    }
  });
}

// A bound is worth something only if it is not far above what happens.
LUTRA_TEST(lut_gemm, the_bound_is_near_the_worst_error) {
  each_version([&](const LutGemmKernels& set) {
    if (set.rounding[kLutFast] == LutRounding::kNothing) return;
    LutCase problem = case_of(64, 256, 64, 2, WeightKind::kUniform, OffsetKind::kZeroCode);
    LutOperands operands(problem);
    set_all_bits(operands, problem.layout);
    std::vector<uint8_t> zeros(static_cast<size_t>(problem.layout.offsets_elements()));
    PackedView view = operands.view();
    view.offsets = zeros.data();
    const bool rounds_tables = set.rounding[kLutFast] == LutRounding::kTables;
    float* x = operands.x_data();
    for (int k = 0; k < 256; ++k) {
      const float entry = rounds_tables ? 2.0f : 1.0f;  // a table entry is half of x
      x[k] = k % 64 == 0 ? entry * 127.0f : !rounds_tables || k % 4 == 0 ? entry * 0.49f : 0.0f;
    }
    std::vector<float> bound(64);
    Context context = one_lane();
    CHECK(lut_gemm_with(set, context, view, operands.x(), operands.y(), Mode::kFast).ok());
    CHECK(lut_gemm_error_bound_with(set, context, view, operands.x(), {bound.data(), Dtype::kF32, 2, {1, 64}},
                                    Mode::kFast)
              .ok());
    std::vector<double> exact(64);
    lut_gemm_reference(lut_tile(view, 0), x, exact.data());
    for (size_t r = 0; r < 64; ++r)
      CHECK(std::fabs(static_cast<double>(operands.y_data()[r]) - exact[r]) > 0.75 * static_cast<double>(bound[r]));
  });
}

LUTRA_TEST(lut_gemm, a_non_finite_activation_is_never_hidden) {
  for (OffsetKind offset : {OffsetKind::kNone, OffsetKind::kReal})
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (int64_t tokens : {2, 9})
        for (float poison : {NAN, INFINITY, -INFINITY}) {
          LutCase problem = case_of(65, 172, tokens == 9 ? 172 : 32, 2, kind, offset);
          problem.tokens = tokens;
          LutOperands operands(problem);
          operands.x_data()[172 + 70] = poison;
          operands.x_data()[172 + 100] = poison;  // in the next chunk: integer sums of both may wrap
          each_version([&](const LutGemmKernels& set) {
            for (Mode mode : kModes) {
              Context context = one_lane();
              CHECK(lut_gemm_with(set, context, operands.view(), operands.x(), operands.y(), mode).ok());
              for (int64_t r = 0; r < 65; ++r) {
                CHECK(std::isfinite(operands.y_data()[r]));
                CHECK(!std::isfinite(operands.y_data()[65 + r]) || operands.weight(r, 70) == 0.0 ||
                      operands.weight(r, 100) == 0.0);
              }
            }
          });
        }
}

LUTRA_TEST(lut_gemm, misuse_is_refused) {
  const LutCase problem = case_of(65, 172, 32, 2, WeightKind::kUniform, OffsetKind::kReal);
  LutOperands operands(problem);
  Context context = one_lane();
  const PackedView good = operands.view();
  const TensorView x = operands.x();
  const TensorView y = operands.y();
  const auto refused = [&](const PackedView& w, const TensorView& a, const TensorView& b, Code code) {
    return lut_gemm(context, w, a, b, Mode::kExact).code == code;
  };
  CHECK(lut_gemm(context, good, x, y, Mode::kExact).ok());
  TensorView bad = x;
  bad.shape[1] = 171;
  CHECK(refused(good, bad, y, Code::kShape));
  bad = x;
  bad.dtype = Dtype::kF64;
  CHECK(refused(good, bad, y, Code::kDtype));
  bad = y;
  bad.shape[1] = 64;
  CHECK(refused(good, x, bad, Code::kShape));
  bad = y;
  bad.shape[0] = 2;
  CHECK(refused(good, x, bad, Code::kShape));
  bad = y;
  bad.data = x.data;
  CHECK(refused(good, x, bad, Code::kOption));
  PackedView broken = good;
  broken.offsets = nullptr;
  CHECK(refused(broken, x, y, Code::kShape));
  broken = good;
  broken.codes = nullptr;
  CHECK(refused(broken, x, y, Code::kShape));
  broken = good;
  broken.layout.group_size = 24;
  CHECK(refused(broken, x, y, Code::kOption));
  LutGemmKernels narrow = kLutGemmScalar;
  narrow.min_bits = 3;
  CHECK(lut_gemm_with(narrow, context, good, x, y, Mode::kExact).code == Code::kUnsupported);
  CancelToken token;
  token.cancel();
  context.cancel = &token;
  CHECK(refused(good, x, y, Code::kCancelled));
}
