// Products with a sub-branch, against the fp64 answer with every set of lut_gemm; the products with A and B themselves
// are those of the machine (LUTRA_ISA forces lesser ones).
#include "core/half.h"
#include "lut_gemm_cases.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr Mode kModes[] = {Mode::kExact, Mode::kAccurate, Mode::kFast};
constexpr Dtype kTypes[] = {Dtype::kF16, Dtype::kBF16, Dtype::kI8};

LutCase case_of(int64_t rows, int64_t cols, int64_t tokens, int64_t rank, Dtype type) {
  LutCase problem;
  problem.layout = make_layout(rows, cols, 32, 3, WeightKind::kUniform, OffsetKind::kReal, Dtype::kF16);
  problem.tokens = tokens;
  problem.rank = rank;
  problem.sub_branch = type;
  problem.slack = static_cast<size_t>(rank % 3);
  problem.seed = static_cast<uint64_t>(rank * 1000 + tokens);
  return problem;
}

}  // namespace

LUTRA_TEST(sub_branch, every_rank_and_token_count_matches_the_formula) {
  size_t turn = 0;
  for (Dtype type : kTypes)
    for (int64_t rank : {1, 7, 8, 16, 33, 64, 128}) {
      // Every rank with tables, with panels, and with one count that goes round.
      const int64_t counts[] = {2, 4, 5, 17, 33, 129};
      for (int64_t tokens : {int64_t{1}, int64_t{9}, counts[turn++ % 6]}) {
        if (quick() && (rank + tokens) % 3 != 0) continue;
        LutCase problem = case_of(rank == 128 ? 130 : 145, 172, tokens, rank, type);
        problem.layout.bits = 2 + static_cast<int>((rank + tokens) % 3);
        LutOperands operands(problem);
        for (const LutGemmKernels* set : versions(lut_gemm_kernels))
          for (Mode mode : kModes) {
            const std::string wrong = lut_parity(*set, problem, operands, mode);
            if (!wrong.empty()) fail(__FILE__, __LINE__, wrong);
          }
      }
    }
}

LUTRA_TEST(sub_branch, small_matrices_and_long_rows_match_the_formula) {
  for (Dtype type : kTypes)
    for (const auto& [rows, cols, rank] :
         {std::array<int64_t, 3>{1, 1, 1}, {3, 100, 3}, {16, 7, 7}, {65, 33, 33}, {17, 1500, 16}, {600, 640, 600}})
      for (int64_t tokens : {1, 9}) {
        LutCase problem = case_of(rows, cols, tokens, rank, type);
        LutOperands operands(problem);
        for (const LutGemmKernels* set : versions(lut_gemm_kernels))
          for (Mode mode : kModes) {
            const std::string wrong = lut_parity(*set, problem, operands, mode);
            if (!wrong.empty()) fail(__FILE__, __LINE__, wrong);
          }
      }
}

// With weights of zero the sub-branch is all there is: its own error, in fp32 whatever the mode.
LUTRA_TEST(sub_branch, is_exact_in_every_mode) {
  for (Dtype type : kTypes)
    for (Distribution d : {Distribution::kNormal, Distribution::kOutlier, Distribution::kConstant}) {
      LutCase problem = case_of(192, 2048, 2, 64, type);
      problem.distribution = d;
      LutOperands operands(problem);
      std::vector<uint16_t> zeros(static_cast<size_t>(problem.layout.scales_elements()));
      PackedView view = operands.view();
      view.scales = zeros.data();
      view.offsets = zeros.data();
      std::vector<double> answer(2 * 192);
      for (size_t r = 0; r < 192; ++r)
        for (size_t k = 0; k < 2048; ++k) {
          const double w = operands.sub_branch_weight(static_cast<int64_t>(r), static_cast<int64_t>(k));
          for (size_t t = 0; t < 2; ++t)
            answer[t * 192 + r] += w * static_cast<double>(operands.x_data()[t * 2048 + k]);
        }
      for (const LutGemmKernels* set : versions(lut_gemm_kernels))
        for (Mode mode : kModes) {
          Context context = one_lane();
          CHECK(lut_gemm_with(*set, context, view, operands.x(), operands.y(), mode).ok());
          CHECK_LE(nmse(operands.y_data(), answer.data(), answer.size()), 1e-12);
        }
    }
}

LUTRA_TEST(sub_branch, bits_depend_neither_on_lanes_nor_on_other_tokens) {
  ThreadPool pool(3);
  for (Dtype type : kTypes)
    for (Mode mode : kModes) {
      const LutCase problem = case_of(145, 600, 41, 33, type);
      LutOperands operands(problem);
      Context single = one_lane();
      const LutOptions invariant(mode, true);
      CHECK(lut_gemm(single, operands.view(), operands.x(), operands.y(), invariant).ok());
      const std::vector<float> together(operands.y_data(), operands.y_data() + 41 * 145);
      Context many;
      many.pool = &pool;
      operands.poison_y();
      CHECK(lut_gemm(many, operands.view(), operands.x(), operands.y(), invariant).ok());
      CHECK(!std::memcmp(together.data(), operands.y_data(), together.size() * sizeof(float)));
      for (int64_t t = 0; t < 41; ++t) {
        std::vector<float> alone(145);
        const TensorView x = {operands.x_data() + t * 600, Dtype::kF32, 1, {600}};
        CHECK(lut_gemm(single, operands.view(), x, {alone.data(), Dtype::kF32, 1, {145}}, invariant).ok());
        CHECK(!std::memcmp(alone.data(), together.data() + t * 145, alone.size() * sizeof(float)));
      }
    }
}

LUTRA_TEST(sub_branch, dequantize_adds_it) {
  for (Dtype type : kTypes) {
    const LutCase problem = case_of(70, 100, 1, 9, type);
    LutOperands operands(problem);
    std::vector<float> w(70 * 100);
    Context context = one_lane();
    CHECK(dequantize(context, operands.view(), {w.data(), Dtype::kF32, 2, {70, 100}}).ok());
    for (int64_t r = 0; r < 70; ++r)
      for (int64_t k = 0; k < 100; ++k)
        CHECK_LE(std::fabs(static_cast<double>(w[static_cast<size_t>(r * 100 + k)]) - operands.weight(r, k)), 1e-7);
  }
}

LUTRA_TEST(sub_branch, misuse_is_refused) {
  const LutCase problem = case_of(65, 172, 1, 8, Dtype::kF16);
  LutOperands operands(problem);
  Context context = one_lane();
  const auto refused = [&](auto&& change, Code code) {
    PackedView view = operands.view();
    change(view.sub_branch);
    return lut_gemm(context, view, operands.x(), operands.y(), Mode::kExact).code == code;
  };
  CHECK(refused([](SubBranch&) {}, Code::kOk));
  CHECK(refused([](SubBranch& pair) { pair.rank = 66; }, Code::kShape));
  CHECK(refused([](SubBranch& pair) { pair.rank = -1; }, Code::kShape));
  CHECK(refused([](SubBranch& pair) { pair.a = nullptr; }, Code::kShape));
  CHECK(refused([](SubBranch& pair) { pair.b = nullptr; }, Code::kShape));
  CHECK(refused([](SubBranch& pair) { pair.dtype = Dtype::kF64; }, Code::kDtype));
  CHECK(refused([](SubBranch& pair) { pair.dtype = Dtype::kI8; }, Code::kShape));
}
