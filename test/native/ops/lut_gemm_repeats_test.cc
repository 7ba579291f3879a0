// The same products again and again, by callers that share a pool: every result has the bits of a single lane's.
#include <atomic>
#include <thread>

#include "../parity/lut_gemm_cases.h"
#include "../parity/versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr int kCallers = 3;
constexpr int64_t kRows = 150;  // tiles for every lane, the last of them ragged
constexpr int64_t kTokens[] = {1, 4, 11};

struct Work {
  const LutGemmKernels* set;
  Mode mode;
  int64_t tokens;
  std::vector<float> answer;
};

// y of the first tokens; poisoned, so that an unwritten output shows.
bool multiply(Context& context, const LutOperands& operands, const Work& work, std::vector<float>& y) {
  y.assign(static_cast<size_t>(work.tokens * kRows), NAN);
  TensorView x = operands.x();
  x.shape[0] = work.tokens;
  const TensorView out = {y.data(), Dtype::kF32, 2, {work.tokens, kRows}};
  return lut_gemm_with(*work.set, context, operands.view(), x, out, work.mode).ok();
}

}  // namespace

LUTRA_TEST(ops, ten_thousand_products_across_threads_have_the_same_bits) {
  LutCase problem;
  problem.layout = make_layout(kRows, 352, 96, 3, WeightKind::kUniform, OffsetKind::kZeroCode, Dtype::kF16);
  problem.tokens = 11;
  const LutOperands operands(problem);
  std::vector<Work> works;
  for (const LutGemmKernels* set : versions(lut_gemm_kernels))
    for (Mode mode : {Mode::kExact, Mode::kAccurate, Mode::kFast})
      for (int64_t tokens : kTokens) works.push_back({set, mode, tokens, {}});
  Context single = one_lane();
  for (Work& work : works) CHECK(multiply(single, operands, work, work.answer));
  const int repeats = quick() ? 1000 : 10000;
  ThreadPool pool(kCallers);
  std::atomic<int> taken{0};
  std::atomic<int> different{0};
  const auto call = [&] {
    Context context;
    context.pool = &pool;
    std::vector<float> y;
    for (int i; (i = taken++) < repeats;) {
      const Work& work = works[static_cast<size_t>(i) % works.size()];
      const bool done = multiply(context, operands, work, y);
      if (!done || std::memcmp(y.data(), work.answer.data(), y.size() * sizeof(float))) ++different;
    }
  };
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; ++c) callers.emplace_back(call);
  for (std::thread& caller : callers) caller.join();
  CHECK(different.load() == 0);
}
