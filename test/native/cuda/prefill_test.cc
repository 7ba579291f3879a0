// The prefill kernel's own code on the host's machine of fibers, against the fp64 answer.
#include <array>

#include "core/half.h"
#include "prefill_runs.h"

using namespace lutra;
using namespace lutra::test;

namespace {

LutCase case_of(int64_t tokens, int64_t rows, int64_t cols, int64_t group_size, int bits, WeightKind kind,
                OffsetKind offset) {
  LutCase problem;
  problem.layout = make_layout(rows, cols, group_size, bits, kind, offset, Dtype::kF16);
  problem.tokens = tokens;
  problem.seed = static_cast<uint64_t>(rows * 31 + cols * 7 + bits + tokens);
  return problem;
}

void check(const LutCase& problem, const PrefillRun& run) {
  DecodeOperands operands(problem, run.x_dtype);
  std::vector<float> y;
  std::string wrong = run_prefill(operands, run, &y);
  if (wrong.empty()) wrong = decode_errors(operands, run, y);
  if (!wrong.empty()) fail(__FILE__, __LINE__, wrong);
}

constexpr WeightKind kKinds[] = {WeightKind::kUniform, WeightKind::kPlanes};
constexpr OffsetKind kOffsets[] = {OffsetKind::kNone, OffsetKind::kZeroCode, OffsetKind::kReal};

}  // namespace

LUTRA_TEST(cuda, prefill_matches_the_formula_for_every_width_kind_and_offset) {
  size_t turn = 0;
  for (int bits : {2, 3, 4})
    for (WeightKind kind : kKinds)
      for (OffsetKind offset : kOffsets)
        for (Dtype x : {Dtype::kF16, Dtype::kBF16}) {
          if (kind == WeightKind::kPlanes && offset == OffsetKind::kZeroCode) continue;
          if (quick() && turn++ % 7 != 0) continue;
          PrefillRun run;
          run.x_dtype = x;
          run.block_columns = kind == WeightKind::kUniform && x == Dtype::kF16 ? 128 : 64;
          check(case_of(19, 37, 300, 32, bits, kind, offset), run);
        }
}

LUTRA_TEST(cuda, prefill_takes_every_group_size_and_ragged_shapes) {
  struct Shape {
    int64_t tokens, rows, cols, group;
  };
  for (const Shape& shape : {Shape{17, 1, 1, 1},
                             {18, 16, 16, 16},
                             {33, 17, 144, 16},
                             {17, 145, 333, 32},
                             {20, 129, 127, 96},
                             {65, 40, 300, 64},
                             {17, 130, 129, 128},
                             {31, 31, 700, 700},
                             {17, 8, 1100, 1024},
                             {40, 80, 480, 160},
                             {129, 17, 200, 200}})
    for (int bits : {2, 3, 4}) {
      if (quick() && (shape.rows + bits) % 5 != 0) continue;
      LutCase problem =
          case_of(shape.tokens, shape.rows, shape.cols, shape.group, bits, kKinds[bits % 2], OffsetKind::kReal);
      problem.slack = static_cast<size_t>(shape.cols % 5);
      check(problem, {});
      problem.layout.kind = kKinds[1 - bits % 2];
      check(problem, {});
    }
}

LUTRA_TEST(cuda, prefill_takes_17_to_257_tokens_in_parts) {
  for (int64_t tokens : {17, 42, 43, 64, 65, 128, 129, 257})
    for (int parts : {1, 2, 3}) {
      if (quick() && (tokens + parts) % 6 != 0) continue;
      LutCase problem =
          case_of(tokens, 21, 140, 64, 2 + static_cast<int>(tokens) % 3, kKinds[tokens % 2], OffsetKind::kNone);
      PrefillRun run;
      run.x_dtype = Dtype::kF32;
      run.parts = parts;
      run.slots = 1;
      check(problem, run);
      if (parts > 1) continue;
      run.x_dtype = Dtype::kF16;
      check(problem, run);
    }
}

LUTRA_TEST(cuda, prefill_takes_every_distribution_and_stored_type) {
  for (Distribution d : {Distribution::kNormal, Distribution::kUniform, Distribution::kOutlier, Distribution::kConstant,
                         Distribution::kZero})
    for (Dtype stored : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
      for (WeightKind kind : kKinds) {
        if (quick() && (static_cast<int>(d) + static_cast<int>(stored)) % 5 != 0) continue;
        LutCase problem = case_of(17, 20, 520, 128, 3, kind, OffsetKind::kReal);
        problem.layout.scale_dtype = problem.layout.offset_dtype = stored;
        problem.distribution = d;
        PrefillRun run;
        run.x_dtype = Dtype::kF32;
        run.parts = 3;
        check(problem, run);
      }
}

// What is added in which order is a matter of the shape: not of the order of blocks, threads and copies, nor of how
// deep units are staged, nor of what other tokens hold.
LUTRA_TEST(cuda, prefill_bits_depend_on_no_schedule) {
  for (WeightKind kind : kKinds) {
    const LutCase problem = case_of(70, 150, 700, 64, 3, kind, OffsetKind::kNone);
    DecodeOperands operands(problem, Dtype::kF16);
    PrefillRun run;
    run.splits = 3;
    run.stages = 2;
    std::vector<float> first;
    CHECK(run_prefill(operands, run, &first).empty());
    for (uint64_t seed : {2, 3, 4}) {
      run.seed = seed;
      run.resident = static_cast<int>(2 * seed) - 3;  // 1, 3, 5
      run.stages = static_cast<int>(seed);
      std::vector<float> again;
      CHECK(run_prefill(operands, run, &again).empty());
      CHECK(first == again);
    }
    LutCase alone = problem;
    alone.tokens = 1;
    DecodeOperands one(alone, Dtype::kF16);
    std::vector<float> y;
    CHECK(run_prefill(one, run, &y).empty());
    CHECK(!std::memcmp(y.data(), first.data(), y.size() * sizeof(float)));
  }
}

LUTRA_TEST(cuda, prefill_gives_the_same_bits_in_narrow_and_wide_blocks) {
  const LutCase problem = case_of(130, 100, 300, 32, 4, WeightKind::kUniform, OffsetKind::kZeroCode);
  DecodeOperands operands(problem, Dtype::kBF16);
  PrefillRun run;
  run.x_dtype = Dtype::kBF16;
  std::vector<float> y[2];
  for (int columns : {64, 128}) {
    run.block_columns = columns;
    CHECK(run_prefill(operands, run, &y[columns / 128]).empty());
  }
  CHECK(y[0] == y[1]);
}

LUTRA_TEST(cuda, prefill_adds_ranges_of_columns_to_the_same_answer) {
  const LutCase problem = case_of(35, 45, 1300, 32, 4, WeightKind::kUniform, OffsetKind::kZeroCode);
  for (int splits : {1, 2, 3, 7, 11}) {
    PrefillRun run;
    run.splits = splits;
    run.resident = 3;
    check(problem, run);
  }
}

LUTRA_TEST(cuda, prefill_stores_y_in_16_bits) {
  const LutCase problem = case_of(17, 45, 300, 32, 3, WeightKind::kUniform, OffsetKind::kReal);
  for (Dtype y_dtype : {Dtype::kF16, Dtype::kBF16}) {
    DecodeOperands operands(problem, Dtype::kBF16);
    PrefillRun run;
    run.x_dtype = Dtype::kBF16;
    std::vector<float> wide, narrow;
    CHECK(run_prefill(operands, run, &wide).empty());
    run.y_dtype = y_dtype;
    CHECK(run_prefill(operands, run, &narrow).empty());
    for (size_t i = 0; i < wide.size(); ++i)
      CHECK(narrow[i] == (y_dtype == Dtype::kF16 ? half_to_float(float_to_half(wide[i]))
                                                 : bfloat16_to_float(float_to_bfloat16(wide[i]))));
  }
}

LUTRA_TEST(cuda, prefill_adds_the_sub_branch) {
  size_t turn = 0;
  for (Dtype x : {Dtype::kF16, Dtype::kBF16, Dtype::kF32})
    for (Dtype type : {Dtype::kF16, Dtype::kBF16, Dtype::kI8})
      for (int64_t rank : {1, 7, 16, 33, 64}) {
        ++turn;
        if (quick() && turn % 5 != 0) continue;
        LutCase problem = case_of(17 + static_cast<int64_t>(turn % 3) * 31, 145, 172, 32,
                                  2 + static_cast<int>(rank % 3), kKinds[rank % 2], OffsetKind::kReal);
        problem.rank = rank;
        problem.sub_branch = type;
        PrefillRun run;
        run.x_dtype = x;
        run.parts = x == Dtype::kF32 ? 3 : 1;
        run.splits = 1 + static_cast<int>(turn % 2);
        check(problem, run);
      }
}

// Every plan of a device covers the tokens with whole blocks, fits its shared memory and leaves no range empty.
LUTRA_TEST(cuda, prefill_plans_fit_devices) {
  for (int64_t rows : {1, 4096, 49152})
    for (int64_t cols : {1, 128, 12288})
      for (int tokens : {1, 17, 64, 65, 512, 4096})
        for (int parts : {1, 2, 3})
          for (WeightKind kind : kKinds)
            for (const cuda::PrefillDevice& device :
                 {cuda::PrefillDevice{132, 227 * 1024}, {108, 163 * 1024}, {142, 99 * 1024}, {1, 99 * 1024}}) {
              const PackedLayout layout = make_layout(rows, cols, cols, 4, kind, OffsetKind::kNone, Dtype::kF16);
              const cuda::PrefillPlan plan = cuda::plan_prefill(layout, 8, tokens, parts, device);
              const int held = plan.block_columns / parts;
              CHECK(plan.column_blocks * held >= tokens && (plan.column_blocks - 1) * held < tokens);
              CHECK(plan.row_blocks * int64_t{cuda::kPrefillRows} >= rows);
              CHECK(plan.splits >= 1 && plan.splits <= ceil_div(cols, cuda::kUnitCols));
              CHECK(cuda::prefill_shared_bytes(4, plan.block_columns, plan.stages) <= device.shared_bytes);
              CHECK(kind == WeightKind::kUniform || plan.block_columns == 64);
            }
}
