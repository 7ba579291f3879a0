// The CUDA backend itself, through its C ABI, against the fp64 answer. An executable of its own: it needs a device, or
// the host's runtime in place of one, and says "skipped: no device" where there is none.
#include <array>

#include "cuda/lut_gemm/fragments.h"
#include "decode_runs.h"
#include "test_device.h"

using namespace lutra;
using namespace lutra::test;

namespace {

size_t stored_bytes(int64_t count, Dtype dtype) { return static_cast<size_t>(count) * dtype_bytes(dtype); }

LutraCudaMatrix uploaded_matrix(Device& device, DecodeOperands& operands) {
  const PackedView view = operands.logical().view();
  const PackedLayout& layout = view.layout;
  const SubBranch& branch = view.sub_branch;
  const Dtype offsets = layout.offset_kind == OffsetKind::kZeroCode ? Dtype::kU8 : layout.offset_dtype;
  LutraCudaMatrix w = {};
  w.rows = layout.rows;
  w.cols = layout.cols;
  w.group_size = layout.group_size;
  w.bits = layout.bits;
  w.kind = static_cast<int32_t>(layout.kind);
  w.offset_kind = static_cast<int32_t>(layout.offset_kind);
  w.scale_dtype = static_cast<int32_t>(layout.scale_dtype);
  w.offset_dtype = static_cast<int32_t>(layout.offset_dtype);
  w.codes = device.uploaded(operands.fragments().data(), operands.fragments().size() * sizeof(uint32_t));
  w.scales = device.uploaded(view.scales, stored_bytes(layout.scales_elements(), layout.scale_dtype));
  w.offsets = device.uploaded(view.offsets, stored_bytes(layout.offsets_elements(), offsets));
  w.branch_rank = branch.rank;
  w.branch_dtype = static_cast<int32_t>(branch.dtype);
  w.branch_a = device.uploaded(branch.a, stored_bytes(branch.rank * layout.cols, branch.dtype));
  w.branch_b = device.uploaded(branch.b, stored_bytes(branch.rank * layout.rows, branch.dtype));
  if (branch.rank == 0) return w;
  w.branch_a_scales =
      static_cast<const float*>(device.uploaded(branch.a_scales, stored_bytes(branch.rank, Dtype::kF32)));
  w.branch_b_scales =
      static_cast<const float*>(device.uploaded(branch.b_scales, stored_bytes(layout.rows, Dtype::kF32)));
  return w;
}

// Runs the product several times on one workspace, which must leave the same bits each time.
std::vector<float> product(Device& device, DecodeOperands& operands, const DecodeRun& run) {
  const LutCase& problem = operands.problem();
  const size_t outputs = static_cast<size_t>(problem.tokens * problem.layout.rows);
  std::vector<uint8_t> y(outputs * dtype_bytes(run.y_dtype), 0xff);
  LutraCudaLutGemm op = {};
  op.bytes = sizeof op;
  op.tokens = static_cast<int32_t>(problem.tokens);
  op.parts = run.parts;
  op.x_dtype = static_cast<int32_t>(run.x_dtype);
  op.y_dtype = static_cast<int32_t>(run.y_dtype);
  op.w = uploaded_matrix(device, operands);
  op.x = device.uploaded(operands.x().data(), operands.x().size());
  op.y = device.uploaded(y.data(), y.size());
  uint64_t bytes = 0;
  device.expect(table()->workspace(device.context(), LUTRA_CUDA_OP_LUT_GEMM, &op, &bytes));
  op.workspace = device.memory(bytes);
  device.expect(table()->clear(device.context(), nullptr, op.workspace, bytes));
  std::vector<uint8_t> first;
  for (int turn = 0; turn < 3; ++turn) {
    device.expect(table()->launch(device.context(), nullptr, LUTRA_CUDA_OP_LUT_GEMM, &op));
    device.expect(table()->download(device.context(), nullptr, y.data(), op.y, y.size()));
    device.expect(table()->synchronize(device.context(), nullptr));
    if (turn == 0) first = y;
    CHECK(first == y);
  }
  return stored_floats(y.data(), outputs, run.y_dtype);
}

void check(const LutCase& problem, const DecodeRun& run) {
  Device device;
  DecodeOperands operands(problem, run.x_dtype);
  const std::string wrong = decode_errors(operands, run, product(device, operands, run));
  if (!wrong.empty()) fail(__FILE__, __LINE__, wrong);
}

LutCase case_of(int64_t rows, int64_t cols, int64_t group_size, int bits, WeightKind kind, OffsetKind offset) {
  LutCase problem;
  problem.layout = make_layout(rows, cols, group_size, bits, kind, offset, Dtype::kF16);
  problem.seed = static_cast<uint64_t>(rows + cols + bits);
  return problem;
}

}  // namespace

LUTRA_TEST(cuda_device, decode_matches_the_formula) {
  if (no_device()) return;
  for (const auto& [rows, cols, group] :
       {std::array<int64_t, 3>{1, 1, 1}, {17, 144, 16}, {300, 1000, 32}, {1030, 2060, 128}, {64, 5000, 5000}})
    for (int bits : {2, 3, 4})
      for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
        for (OffsetKind offset : {OffsetKind::kNone, OffsetKind::kReal})
          for (Dtype x : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
            for (int64_t tokens : {1, 5, 16}) {
              if (quick() && (rows > 300 || (rows + bits + tokens + static_cast<int>(x)) % 7 != 0)) continue;
              LutCase problem = case_of(rows, cols, group, bits, kind, offset);
              problem.tokens = tokens;
              DecodeRun run;
              run.x_dtype = x;
              run.parts = x != Dtype::kF32 ? 1 : tokens == 16 ? 2 : 3;
              check(problem, run);
            }
}

LUTRA_TEST(cuda_device, decode_fuses_the_sub_branch) {
  if (no_device()) return;
  for (Dtype type : {Dtype::kF16, Dtype::kBF16, Dtype::kI8})
    for (int64_t rank : {1, 7, 16, 33, 64, 128})
      for (int64_t tokens : {1, 8, 16}) {
        if (quick() && (rank % 11 != 0 || tokens != 8)) continue;
        LutCase problem =
            case_of(quick() ? 150 : 1500, quick() ? 300 : 1300, 64, 3, WeightKind::kUniform, OffsetKind::kZeroCode);
        problem.rank = rank;
        problem.sub_branch = type;
        problem.tokens = tokens;
        check(problem, {});
      }
}

LUTRA_TEST(cuda_device, prefill_matches_the_formula) {
  if (no_device()) return;
  for (const auto& [rows, cols, group] :
       {std::array<int64_t, 3>{1, 1, 1}, {17, 144, 16}, {300, 1000, 32}, {1030, 2060, 128}, {64, 5000, 5000}})
    for (int bits : {2, 3, 4})
      for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
        for (Dtype x : {Dtype::kF32, Dtype::kF16, Dtype::kBF16})
          for (int64_t tokens : {14, 17, 64, 300}) {
            if (quick() && (rows > 300 || tokens > 64 || (rows + bits + tokens + static_cast<int>(x)) % 11 != 0))
              continue;
            if (tokens == 14 && x != Dtype::kF32) continue;  // 42 columns of three parts
            LutCase problem = case_of(rows, cols, group, bits, kind, OffsetKind::kReal);
            problem.tokens = tokens;
            DecodeRun run;
            run.x_dtype = x;
            run.parts = x == Dtype::kF32 ? 3 : 1;
            check(problem, run);
          }
}

LUTRA_TEST(cuda_device, prefill_adds_the_sub_branch) {
  if (no_device()) return;
  for (Dtype x : {Dtype::kF16, Dtype::kBF16})
    for (Dtype type : {Dtype::kF16, Dtype::kBF16, Dtype::kI8})
      for (int64_t rank : {1, 16, 33, 128}) {
        if (quick() && (rank != 33 || (x == Dtype::kF16) == (type == Dtype::kF16))) continue;
        LutCase problem =
            case_of(quick() ? 150 : 1500, quick() ? 300 : 1300, 64, 3, WeightKind::kUniform, OffsetKind::kZeroCode);
        problem.rank = rank;
        problem.sub_branch = type;
        problem.tokens = quick() ? 20 : 200;
        DecodeRun run;
        run.x_dtype = x;
        check(problem, run);
      }
}

LUTRA_TEST(cuda_device, a_replayed_graph_gives_the_same_bits) {
  if (no_device()) return;
  Device device;
  float host[2] = {1.0f, 2.0f};
  LutraCudaAdd op = {};
  op.bytes = sizeof op;
  op.count = op.period = 2;
  op.u = static_cast<const float*>(device.uploaded(host, sizeof host));
  op.y = static_cast<float*>(device.uploaded(host, sizeof host));
  LutraCudaGraph* graph = nullptr;
  device.expect(table()->synchronize(device.context(), nullptr));
  device.expect(table()->begin_capture(device.context(), nullptr));
  device.expect(table()->launch(device.context(), nullptr, LUTRA_CUDA_OP_ADD, &op));
  device.expect(table()->end_capture(device.context(), nullptr, &graph));
  for (int turn = 0; turn < 3; ++turn) device.expect(table()->replay(device.context(), nullptr, graph));
  device.expect(table()->download(device.context(), nullptr, host, op.y, sizeof host));
  device.expect(table()->synchronize(device.context(), nullptr));
  CHECK(host[0] == 4.0f && host[1] == 8.0f);
}

LUTRA_TEST(cuda_device, a_refused_launch_spoils_nothing_and_a_failed_one_leaves_no_capture) {
  if (no_device()) return;
  const auto fail_next = fail_next_launch();
  if (!fail_next) return;
  Device other;
  void* const memory = other.memory(16);
  {
    Device device;
    float host[2] = {1.0f, 2.0f};
    LutraCudaAdd op = {};
    op.bytes = sizeof op;
    op.count = op.period = 2;
    op.u = static_cast<const float*>(device.uploaded(host, sizeof host));
    op.y = static_cast<float*>(device.uploaded(host, sizeof host));
    fail_next(kTooManyResources);
    CHECK(device.launched(LUTRA_CUDA_OP_ADD, op) == LUTRA_CUDA_ARGUMENT);
    CHECK(std::string(table()->last_error(device.context())).find("too many resources") != std::string::npos);
    device.launch(LUTRA_CUDA_OP_ADD, op);
    device.expect(table()->begin_capture(device.context(), nullptr));
    void* more = nullptr;
    CHECK(table()->allocate(device.context(), 16, &more) == LUTRA_CUDA_ARGUMENT);
    fail_next(kLaunchFailure);
    CHECK(device.launched(LUTRA_CUDA_OP_ADD, op) == LUTRA_CUDA_FAILED);
    LutraCudaGraph* graph = nullptr;
    CHECK(table()->end_capture(device.context(), nullptr, &graph) == LUTRA_CUDA_FAILED);
    CHECK(graph == nullptr);
  }
  fail_next(0);  // what sticks would stay for the process's life
  other.expect(table()->release(other.context(), memory));
  CHECK(Device().memory(16) != nullptr);
}

LUTRA_TEST(cuda_device, misuse_is_refused_and_poisons_nothing) {
  if (no_device()) return;
  Device device;
  LutraCudaLutGemm op = {};
  const auto launch = [&] { return table()->launch(device.context(), nullptr, LUTRA_CUDA_OP_LUT_GEMM, &op); };
  CHECK(launch() == LUTRA_CUDA_ARGUMENT);  // no size
  op.bytes = sizeof op;
  CHECK(launch() == LUTRA_CUDA_ARGUMENT);  // no layout
  CHECK(table()->launch(device.context(), nullptr, 99, &op) == LUTRA_CUDA_ARGUMENT);
  CHECK(table()->release(device.context(), &op) == LUTRA_CUDA_ARGUMENT);
  void* memory = nullptr;
  CHECK(table()->allocate(device.context(), uint64_t{1} << 50, &memory) == LUTRA_CUDA_NO_MEMORY);
  device.expect(table()->allocate(device.context(), 16, &memory));
  device.expect(table()->release(device.context(), memory));
}

LUTRA_TEST(cuda_device, contexts_give_everything_back) {
  if (no_device()) return;
  LutraCudaFacts before = {}, after = {};
  before.bytes = after.bytes = sizeof before;
  { const Device warm; }
  table()->probe(0, &before);
  for (int round = 0; round < 1000; ++round) {
    Device device;
    device.memory(size_t{4} << 20);
    LutraCudaStream* stream = nullptr;
    LutraCudaEvent* event = nullptr;
    device.expect(table()->create_stream(device.context(), &stream));
    device.expect(table()->create_event(device.context(), &event));
  }
  table()->probe(0, &after);
  CHECK(after.free_bytes + (uint64_t{64} << 20) >= before.free_bytes);
}
