// Every version of lut_gemm against the fp64 answer: odd shapes, ragged groups, all widths, unaligned operands.
#include "lut_gemm_cases.h"
#include "platform/cpu_features.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

constexpr Mode kModes[] = {Mode::kExact, Mode::kAccurate, Mode::kFast};

void demand(const std::string& problem) {
  if (!problem.empty()) fail(__FILE__, __LINE__, problem);
}

// Walks through all combinations of the small choices in a fixed pseudo-random order.
struct Choices {
  std::mt19937_64 random{20240607};

  template <typename T, size_t N>
  T of(const T (&values)[N]) {
    return values[random() % N];
  }
  LutCase next(int64_t rows, int64_t cols, int64_t group) {
    const WeightKind kind = of({WeightKind::kUniform, WeightKind::kUniform, WeightKind::kPlanes});
    OffsetKind offset = of({OffsetKind::kNone, OffsetKind::kZeroCode, OffsetKind::kReal});
    if (kind == WeightKind::kPlanes && offset == OffsetKind::kZeroCode) offset = OffsetKind::kReal;
    LutCase c;
    c.layout =
        make_layout(rows, cols, group, of({2, 3, 4}), kind, offset, of({Dtype::kF16, Dtype::kBF16, Dtype::kF32}));
    c.layout.offset_dtype = of({Dtype::kF16, Dtype::kBF16, Dtype::kF32});
    c.tokens = of({1, 1, 2, 8, 9, 17, 33});
    c.distribution = of({Distribution::kNormal, Distribution::kUniform, Distribution::kOutlier, Distribution::kConstant,
                         Distribution::kZero, Distribution::kDenormal});
    c.slack = of({0, 0, 1, 3});
    c.seed = random();
    return c;
  }
};

// The mutants below are faults in this version.
const LutGemmKernels& best() { return lut_gemm_kernels(4); }

LutCase usual_case() {
  LutCase c;
  c.layout = make_layout(65, 172, 32, 3, WeightKind::kUniform, OffsetKind::kReal, Dtype::kF16);
  c.tokens = 2;
  return c;
}

}  // namespace

// A version that this machine can run and that is not among those tested would pass every test below.
LUTRA_TEST(lut_gemm, every_runnable_version_is_tested) {
  std::string names;
  for (const LutGemmKernels* set : versions(lut_gemm_kernels)) names += std::string(" ") + set->name;
  std::string expected;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512, Isa::kAvx512Vbmi, Isa::kAmx, Isa::kNeon,
                  Isa::kNeonDot, Isa::kNeonI8mm})
    if (isa_runs(isa, usable_features())) expected += std::string(" ") + isa_level(isa).name;
  if (names != expected) fail(__FILE__, __LINE__, "versions" + names + ", expected" + expected);
  CHECK(&lut_gemm_kernels(3) == versions(lut_gemm_kernels).back());
}

LUTRA_TEST(lut_gemm, every_shape_matches_the_reference) {
  Choices choices;
  const int rounds = quick() ? 1 : 4;
  int64_t turn = 0;
  for (int round = 0; round < rounds; ++round)
    for (int64_t rows : {1, 15, 16, 17, 63, 64, 65, 130})
      for (int64_t cols : {1, 15, 16, 31, 32, 33, 63, 64, 65, 127, 172, 352, 1000})
        for (int64_t group : {int64_t{16}, int64_t{32}, int64_t{64}, int64_t{96}, int64_t{128}, cols}) {
          if (quick() && ++turn % 11 != 0) continue;
          const LutCase problem = choices.next(rows, cols, group);
          LutOperands operands(problem);
          for (const LutGemmKernels* set : versions(lut_gemm_kernels))
            for (Mode mode : kModes) demand(lut_parity(*set, problem, operands, mode));
        }
}

LUTRA_TEST(lut_gemm, every_width_and_kind_matches_the_reference) {
  const int64_t cols = quick() ? 192 : 352;
  for (int bits : {2, 3, 4})
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (OffsetKind offset : {OffsetKind::kNone, OffsetKind::kZeroCode, OffsetKind::kReal})
        for (Dtype dtype : {Dtype::kF16, Dtype::kBF16, Dtype::kF32})
          for (int64_t tokens : {1, 9}) {
            if (kind == WeightKind::kPlanes && offset == OffsetKind::kZeroCode) continue;
            LutCase problem;
            problem.layout = make_layout(112, cols, 96, bits, kind, offset, dtype);
            problem.tokens = tokens;
            LutOperands operands(problem);
            for (const LutGemmKernels* set : versions(lut_gemm_kernels))
              for (Mode mode : kModes) demand(lut_parity(*set, problem, operands, mode));
          }
}

// Every way to block tokens, and their remainders; the last tile has rows to spare.
LUTRA_TEST(lut_gemm, every_number_of_tokens_matches_the_reference) {
  for (int64_t tokens = 1; tokens < 258; tokens += tokens == 17 ? 14 : tokens == 33 ? 94 : tokens == 129 ? 126 : 1)
    for (int bits : {2, 3, 4})
      for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes}) {
        if (quick() && (tokens + bits) % 3 != 0) continue;
        LutCase problem;
        const int64_t group = tokens % 3 == 0 ? 64 : tokens % 3 == 1 ? 128 : 352;
        const OffsetKind offset = bits == 3 ? OffsetKind::kReal : OffsetKind::kNone;
        problem.layout = make_layout(bits == 2 ? 64 : 100, 352, group, bits, kind, offset, Dtype::kF16);
        problem.tokens = tokens;
        LutOperands operands(problem);
        for (const LutGemmKernels* set : versions(lut_gemm_kernels))
          for (Mode mode : kModes) demand(lut_parity(*set, problem, operands, mode));
      }
}

LUTRA_TEST(lut_gemm, scalar_takes_one_to_eight_planes) {
  for (int bits : {1, 5, 6, 7, 8})
    for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
      for (int64_t tokens : {1, 9})
        for (Mode mode : kModes) {
          LutCase problem;
          problem.layout = make_layout(17, 100, 32, bits, kind, OffsetKind::kReal, Dtype::kF32);
          problem.tokens = tokens;
          LutOperands operands(problem);
          CHECK(&lut_gemm_kernels(bits) == &kLutGemmScalar);
          demand(lut_parity(kLutGemmScalar, problem, operands, mode));
        }
}

LUTRA_TEST(lut_gemm, reference_is_the_formula) {
  Choices choices;
  for (int i = 0; i < (quick() ? 20 : 200); ++i) {
    const LutCase problem = choices.next(70, 100, choices.of({16, 32, 96, 100}));
    const LutOperands operands(problem);
    for (int64_t t = 0; t < problem.layout.tiles(); ++t) {
      const LutTile tile = lut_tile(operands.view(), t);
      std::vector<double> weights(static_cast<size_t>(tile.cols));
      for (int64_t r = 0; r < tile.rows; ++r) {
        lut_gemm_reference_weights(tile, r, 0, tile.cols, weights.data());
        for (int64_t k = 0; k < tile.cols; ++k)
          CHECK_LE(std::fabs(weights[static_cast<size_t>(k)] - operands.weight(t * 64 + r, k)), 1e-15);
      }
    }
  }
}

// A one-hot x picks a column: with 16-bit scales exact mode must return the very weights that dequantize returns.
LUTRA_TEST(lut_gemm, unit_vectors_pick_columns_exactly) {
  for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
    for (OffsetKind offset : {OffsetKind::kNone, OffsetKind::kZeroCode, OffsetKind::kReal})
      for (int bits : {2, 3, 4})
        for (int64_t batch : {1, 8, 100}) {
          if (kind == WeightKind::kPlanes && offset == OffsetKind::kZeroCode) continue;
          LutCase problem;
          problem.layout = make_layout(65, 100, bits == 2 ? 16 : 32, bits, kind, offset, Dtype::kF16);
          problem.tokens = batch;
          LutOperands operands(problem);
          Context context = one_lane();
          std::vector<float> w(65 * 100);
          CHECK(dequantize(context, operands.view(), {w.data(), Dtype::kF32, 2, {65, 100}}).ok());
          for (const LutGemmKernels* set : versions(lut_gemm_kernels))
            for (int64_t first = 0; first < 100; first += batch) {
              std::memset(operands.x_data(), 0, static_cast<size_t>(batch) * 100 * sizeof(float));
              for (int64_t t = 0; t < batch && first + t < 100; ++t) operands.x_data()[t * 100 + first + t] = 1.0f;
              CHECK(lut_gemm_with(*set, context, operands.view(), operands.x(), operands.y(), Mode::kExact).ok());
              for (int64_t t = 0; t < batch && first + t < 100; ++t)
                for (int64_t r = 0; r < 65; ++r)
                  CHECK(operands.y_data()[t * 65 + r] == w[static_cast<size_t>(r * 100 + first + t)]);
            }
        }
}

LUTRA_TEST(lut_gemm, bits_do_not_depend_on_lanes_alignment_or_batch) {
  for (int64_t tokens : {1, 5, 17})
    for (Mode mode : kModes)
      for (const LutGemmKernels* set : versions(lut_gemm_kernels)) {
        LutCase problem;
        problem.layout =
            make_layout(quick() ? 200 : 700, 352, 96, 3, WeightKind::kUniform, OffsetKind::kZeroCode, Dtype::kF16);
        problem.tokens = tokens;
        LutOperands operands(problem);
        const size_t count = static_cast<size_t>(tokens * problem.layout.rows);
        Context single = one_lane();
        CHECK(lut_gemm_with(*set, single, operands.view(), operands.x(), operands.y(), mode).ok());
        const std::vector<float> first(operands.y_data(), operands.y_data() + count);
        for (int lanes : {2, 3}) {
          ThreadPool pool(lanes);
          Context context;
          context.pool = &pool;
          for (size_t slack : {0, 1, 5}) {
            LutCase moved = problem;
            moved.slack = slack;
            LutOperands again(moved);
            CHECK(lut_gemm_with(*set, context, again.view(), again.x(), again.y(), mode).ok());
            CHECK(!std::memcmp(first.data(), again.y_data(), count * sizeof(float)));
          }
        }
      }
}

LUTRA_TEST(lut_gemm, batch_invariant_tokens_have_the_bits_they_have_alone) {
  for (int64_t tokens : {1, 5, 17, 33})
    for (Mode mode : kModes)
      for (const LutGemmKernels* set : versions(lut_gemm_kernels)) {
        LutCase problem;
        problem.layout = make_layout(200, 352, 96, 3, WeightKind::kUniform, OffsetKind::kZeroCode, Dtype::kF16);
        problem.tokens = tokens;
        LutOperands operands(problem);
        Context single = one_lane();
        const LutOptions invariant(mode, true);
        CHECK(lut_gemm_with(*set, single, operands.view(), operands.x(), operands.y(), invariant).ok());
        for (int64_t t = 0; t < tokens; ++t) {
          std::vector<float> alone(static_cast<size_t>(problem.layout.rows));
          const TensorView x = {operands.x_data() + t * 352, Dtype::kF32, 1, {352}};
          const TensorView y = {alone.data(), Dtype::kF32, 1, {problem.layout.rows}};
          CHECK(lut_gemm_with(*set, single, operands.view(), x, y, invariant).ok());
          CHECK(!std::memcmp(alone.data(), operands.y_data() + t * problem.layout.rows, alone.size() * sizeof(float)));
        }
      }
}

// What an accumulating product adds to is what was there, in the last bits of one addition.
LUTRA_TEST(lut_gemm, multiply_adds_to_what_is_there) {
  for (const LutGemmKernels* set : versions(lut_gemm_kernels))
    for (Mode mode : kModes) {
      const LutCase problem = usual_case();
      LutOperands operands(problem);
      Context context = one_lane();
      const LutTableSpace space(*set, static_cast<LutMode>(mode), problem.layout.cols, problem.tokens);
      void* scratch = context.scratch(space.bytes());
      for (int64_t part = 0; part < lut_table_parts(space, problem.tokens); ++part)
        build_lut_table_part(*set, static_cast<LutMode>(mode), problem.layout, operands.x_data(), space, scratch, part);
      for (int64_t t = 0; t < problem.layout.tiles(); ++t) {
        const LutTile tile = lut_tile(operands.view(), t);
        float product[64];
        float sum[64];
        for (float& value : sum) value = 3.5f;
        set->multiply(static_cast<LutMode>(mode), tile, space.of(scratch, 1), product, false);
        set->multiply(static_cast<LutMode>(mode), tile, space.of(scratch, 1), sum, true);
        for (int64_t r = 0; r < 64; ++r) CHECK(sum[r] == 3.5f + (r < tile.rows ? product[r] : 0.0f));
      }
    }
}

// --- Planted faults: what the parity function is worth. ---

namespace {

void drop_last_group(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  LutTile shorter = tile;
  shorter.cols = (tile.cols - 1) / tile.group_size * tile.group_size;
  best().multiply(mode, shorter, tables, y, accumulate);
}

void swap_two_rows(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  best().multiply(mode, tile, tables, y, accumulate);
  if (tile.rows > 1) std::swap(y[0], y[1]);
}

void forget_offset(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  const std::vector<uint32_t> zeros(static_cast<size_t>(tile.stored_rows * tile.cols));
  LutTile bare = tile;
  bare.offset = LutOffset::kReal;
  bare.offset_type = LutFloat::kF32;
  bare.offsets = zeros.data();
  best().multiply(mode, bare, tables, y, accumulate);
}

void ignore_ragged_tail(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  LutTile shorter = tile;
  shorter.cols = tile.cols / kLutChunk * kLutChunk;
  best().multiply(mode, shorter, tables, y, accumulate);
}

void leave_last_row(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  LutTile shorter = tile;
  shorter.rows = tile.rows - 1;
  best().multiply(mode, shorter, tables, y, accumulate);
}

// The panels of nine tokens in exact mode, which every version has, with one kernel of them swapped for a fault.
LutPanelKernels panels;
const LutPanelKernels* no_panels(LutMode, int, bool, int64_t, int64_t) { return nullptr; }
const LutPanelKernels* faulty_panels(LutMode, int, bool, int64_t, int64_t) { return &panels; }
const LutPanelKernels& best_panels() { return *best().panels(kLutExact, 3, false, 32, 9); }

void drop_a_chunk(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel, const uint8_t* prepared,
                  int64_t tokens, float* sums, bool accumulate) {
  best_panels().multiply(tile, first, last - kLutChunk, panel, prepared, tokens, sums, accumulate);
}

void overwrite(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel, const uint8_t* prepared,
               int64_t tokens, float* sums, bool) {
  best_panels().multiply(tile, first, last, panel, prepared, tokens, sums, false);
}

}  // namespace

LUTRA_TEST(lut_gemm, parity_reports_planted_faults) {
  const LutCase problem = usual_case();
  LutOperands operands(problem);
  for (Mode mode : kModes) {
    CHECK(lut_parity(best(), problem, operands, mode).empty());
    for (auto fault : {drop_last_group, swap_two_rows, forget_offset, ignore_ragged_tail, leave_last_row}) {
      LutGemmKernels mutant = best();
      mutant.multiply = fault;
      mutant.panels = no_panels;
      CHECK(!lut_parity(mutant, problem, operands, mode).empty());
    }
  }
}

LUTRA_TEST(lut_gemm, parity_reports_faults_in_panels) {
  LutCase problem = usual_case();
  problem.layout.cols = 300;
  problem.tokens = 9;
  LutOperands operands(problem);
  CHECK(lut_parity(best(), problem, operands, Mode::kExact).empty());
  for (auto fault : {drop_a_chunk, overwrite}) {
    panels = best_panels();
    panels.multiply = fault;
    LutGemmKernels mutant = best();
    mutant.panels = faulty_panels;
    CHECK(!lut_parity(mutant, problem, operands, Mode::kExact).empty());
  }
}

LUTRA_TEST(lut_gemm, parity_reports_a_wrong_layout) {
  const LutCase problem = usual_case();
  LutOperands operands(problem);
  // Planes 0 and 1 of the first tile change places.
  for (int64_t chunk = 0; chunk < problem.layout.chunks(); ++chunk) {
    uint32_t* words = operands.words() + chunk * problem.layout.bits * 64;
    std::swap_ranges(words, words + 64, words + 64);
  }
  for (const LutGemmKernels* set : versions(lut_gemm_kernels))
    for (Mode mode : kModes) CHECK(!lut_parity(*set, problem, operands, mode).empty());
}
