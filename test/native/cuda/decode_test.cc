// The decode kernel's own code on the host's machine of fibers, against the fp64 answer.
#include <array>

#include "core/half.h"
#include "decode_runs.h"

using namespace lutra;
using namespace lutra::test;

namespace {

LutCase case_of(int64_t rows, int64_t cols, int64_t group_size, int bits, WeightKind kind, OffsetKind offset) {
  LutCase problem;
  problem.layout = make_layout(rows, cols, group_size, bits, kind, offset, Dtype::kF16);
  problem.seed = static_cast<uint64_t>(rows * 31 + cols * 7 + bits);
  return problem;
}

void check(const LutCase& problem, const DecodeRun& run) {
  DecodeOperands operands(problem, run.x_dtype);
  std::vector<float> y;
  std::string wrong = operands.run(run, &y);
  if (wrong.empty()) wrong = decode_errors(operands, run, y);
  if (!wrong.empty()) fail(__FILE__, __LINE__, wrong);
}

constexpr WeightKind kKinds[] = {WeightKind::kUniform, WeightKind::kPlanes};
constexpr OffsetKind kOffsets[] = {OffsetKind::kNone, OffsetKind::kZeroCode, OffsetKind::kReal};

}  // namespace

LUTRA_TEST(cuda, decode_matches_the_formula_for_every_width_kind_and_offset) {
  for (int bits : {2, 3, 4})
    for (WeightKind kind : kKinds)
      for (OffsetKind offset : kOffsets) {
        if (kind == WeightKind::kPlanes && offset == OffsetKind::kZeroCode) continue;
        for (Dtype x : {Dtype::kF16, Dtype::kBF16}) {
          if (quick() && (bits + static_cast<int>(x) + static_cast<int>(offset)) % 3 != 0) continue;
          DecodeRun run;
          run.x_dtype = x;
          check(case_of(37, 300, 32, bits, kind, offset), run);
        }
      }
}

LUTRA_TEST(cuda, decode_takes_every_group_size_and_ragged_shapes) {
  struct Shape {
    int64_t rows, cols, group;
  };
  for (const Shape& shape : {Shape{1, 1, 1},
                             {16, 16, 16},
                             {17, 144, 16},
                             {33, 1000, 16},
                             {65, 333, 32},
                             {129, 127, 96},
                             {40, 700, 64},
                             {300, 129, 128},
                             {31, 1300, 1300},
                             {8, 1700, 1024},
                             {80, 640, 160},
                             {257, 200, 200}})
    for (int bits : {2, 3, 4}) {
      if (quick() && (shape.rows + bits) % 3 != 0) continue;
      LutCase problem = case_of(shape.rows, shape.cols, shape.group, bits, kKinds[bits % 2], OffsetKind::kReal);
      problem.tokens = 1 + shape.rows % 3;
      problem.slack = static_cast<size_t>(shape.cols % 5);
      check(problem, {});
      problem.layout.kind = kKinds[1 - bits % 2];
      check(problem, {});
    }
}

LUTRA_TEST(cuda, decode_takes_1_to_16_tokens_in_parts) {
  for (int64_t tokens = 1; tokens <= 16; ++tokens)
    for (int parts : {1, 2, 3}) {
      if (tokens * parts > 32 || (quick() && (tokens + parts) % 4 != 0)) continue;
      LutCase problem = case_of(21, 270, 64, 2 + static_cast<int>(tokens) % 3, kKinds[tokens % 2], OffsetKind::kNone);
      problem.tokens = tokens;
      DecodeRun run;
      run.x_dtype = Dtype::kF32;
      run.parts = parts;
      check(problem, run);
      if (parts > 1) continue;
      run.x_dtype = Dtype::kF16;
      check(problem, run);
    }
}

LUTRA_TEST(cuda, decode_takes_every_distribution_and_stored_type) {
  for (Distribution d : {Distribution::kNormal, Distribution::kUniform, Distribution::kOutlier, Distribution::kConstant,
                         Distribution::kZero})
    for (Dtype stored : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
      for (WeightKind kind : kKinds) {
        if (quick() && (static_cast<int>(d) + static_cast<int>(stored)) % 3 != 0) continue;
        LutCase problem = case_of(20, 520, 128, 3, kind, OffsetKind::kReal);
        problem.layout.scale_dtype = problem.layout.offset_dtype = stored;
        problem.distribution = d;
        DecodeRun run;
        run.x_dtype = Dtype::kF32;
        run.parts = 3;
        check(problem, run);
      }
}

// What is added in which order is a matter of the shape: not of the order of blocks and threads, nor of other tokens.
LUTRA_TEST(cuda, decode_bits_depend_neither_on_schedules_nor_on_other_tokens) {
  for (WeightKind kind : kKinds) {
    LutCase problem = case_of(270, 700, 64, 3, kind, OffsetKind::kNone);
    problem.tokens = 9;
    DecodeOperands operands(problem, Dtype::kF16);
    DecodeRun run;
    run.splits = 5;
    std::vector<float> first;
    CHECK(operands.run(run, &first).empty());
    for (uint64_t seed : {2, 3, 4}) {
      run.seed = seed;
      run.resident = static_cast<int>(2 * seed) - 3;  // 1, 3, 5
      std::vector<float> again;
      CHECK(operands.run(run, &again).empty());
      CHECK(first == again);
    }
    LutCase alone = problem;
    alone.tokens = 1;
    DecodeOperands one(alone, Dtype::kF16);
    std::vector<float> y;
    CHECK(one.run(run, &y).empty());
    CHECK(!std::memcmp(y.data(), first.data(), y.size() * sizeof(float)));
  }
}

LUTRA_TEST(cuda, decode_adds_ranges_of_columns_to_the_same_answer) {
  const LutCase problem = case_of(45, 1300, 32, 4, WeightKind::kUniform, OffsetKind::kZeroCode);
  for (int splits : {1, 2, 3, 7, 11}) {
    DecodeRun run;
    run.splits = splits;
    run.resident = 3;
    check(problem, run);
  }
}

LUTRA_TEST(cuda, decode_stores_y_in_16_bits) {
  const LutCase problem = case_of(45, 300, 32, 3, WeightKind::kUniform, OffsetKind::kReal);
  for (Dtype y_dtype : {Dtype::kF16, Dtype::kBF16}) {
    DecodeOperands operands(problem, Dtype::kBF16);
    DecodeRun run;
    run.x_dtype = Dtype::kBF16;
    std::vector<float> wide, narrow;
    CHECK(operands.run(run, &wide).empty());
    run.y_dtype = y_dtype;
    CHECK(operands.run(run, &narrow).empty());
    for (size_t i = 0; i < wide.size(); ++i)
      CHECK(narrow[i] == (y_dtype == Dtype::kF16 ? half_to_float(float_to_half(wide[i]))
                                                 : bfloat16_to_float(float_to_bfloat16(wide[i]))));
  }
}

LUTRA_TEST(cuda, decode_fuses_the_sub_branch) {
  size_t turn = 0;
  for (Dtype type : {Dtype::kF16, Dtype::kBF16, Dtype::kI8})
    for (int64_t rank : {1, 7, 8, 16, 33, 64, 128}) {
      if (quick() && (rank + static_cast<int>(type)) % 4 != 0) continue;
      LutCase problem = case_of(145, 172, 32, 2 + static_cast<int>(rank % 3), kKinds[rank % 2], OffsetKind::kReal);
      problem.rank = rank;
      problem.sub_branch = type;
      problem.tokens = std::array<int64_t, 4>{1, 3, 8, 16}[turn++ % 4];
      DecodeRun run;
      run.splits = 1 + static_cast<int>(turn % 3);
      run.resident = 1 + static_cast<int>(turn % 2);
      check(problem, run);
    }
}

LUTRA_TEST(cuda, decode_waits_for_no_block_that_has_not_started) {
  LutCase problem = case_of(300, 500, 128, 3, WeightKind::kUniform, OffsetKind::kNone);
  problem.rank = 40;
  DecodeOperands operands(problem, Dtype::kF16);
  std::vector<float> first;
  for (int resident : {1, 2, 4, 9})
    for (uint64_t seed : {1, 2}) {
      DecodeRun run;
      run.splits = 3;
      run.slots = 9;
      run.resident = resident;
      run.seed = seed;
      std::vector<float> y;
      const std::string wrong = operands.run(run, &y);
      if (!wrong.empty()) fail(__FILE__, __LINE__, wrong);
      if (first.empty()) first = y;
      CHECK(first == y);
    }
}
