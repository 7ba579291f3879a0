#include "program/device_program.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>

#include "program/op_table.h"

namespace lutra {

namespace {

template <typename Arguments>
constexpr int32_t op_of() {
  if constexpr (std::is_same_v<Arguments, LutraCudaLutGemm>) return LUTRA_CUDA_OP_LUT_GEMM;
  if constexpr (std::is_same_v<Arguments, LutraCudaMatrixVector>) return LUTRA_CUDA_OP_MATRIX_VECTOR;
  if constexpr (std::is_same_v<Arguments, LutraCudaAdd>) return LUTRA_CUDA_OP_ADD;
  if constexpr (std::is_same_v<Arguments, LutraCudaEmbedding>) return LUTRA_CUDA_OP_EMBEDDING;
  if constexpr (std::is_same_v<Arguments, LutraCudaRmsNorm>) return LUTRA_CUDA_OP_RMS_NORM;
  if constexpr (std::is_same_v<Arguments, LutraCudaRope>) return LUTRA_CUDA_OP_ROPE;
  if constexpr (std::is_same_v<Arguments, LutraCudaAttention>) return LUTRA_CUDA_OP_ATTENTION;
  if constexpr (std::is_same_v<Arguments, LutraCudaArgMax>) return LUTRA_CUDA_OP_ARG_MAX;
  return LUTRA_CUDA_OP_SWIGLU;
}

// Launches of one operator and shape share a workspace, as they never run side by side.
struct SharedWorkspace {
  int32_t op;
  std::vector<int64_t> shape;
  uint64_t bytes;
  void* memory;
};
std::vector<int64_t> shape_of(const LutraCudaLutGemm& op) {
  return {op.w.rows, op.w.cols, op.w.bits, op.w.kind, op.w.branch_rank, op.tokens, op.parts};
}
std::vector<int64_t> shape_of(const LutraCudaAttention& op) {
  return {op.tokens, op.heads, op.kv_heads, op.head_dim, op.capacity};
}

std::vector<int64_t> shape_of(const LutraCudaArgMax& op) { return {op.rows, op.cols}; }

// Operators whose blocks meet in memory that the program gives them.
template <typename Op>
constexpr bool meets() {
  return std::is_same_v<Op, LutraCudaLutGemm> || std::is_same_v<Op, LutraCudaAttention> ||
         std::is_same_v<Op, LutraCudaArgMax>;
}

}  // namespace

DeviceProgram::~DeviceProgram() {
  if (graph_)
    static_cast<void>(context_->call([&](auto& table, auto* context) { return table.destroy_graph(context, graph_); }));
}

Status DeviceProgram::add(int op, std::span<const TensorView> tensors, std::span<const PackedView> packed,
                          std::span<const double> parameters, std::vector<std::shared_ptr<void>> keep) {
  // Counts operands as the processor's programs do.
  Program counted;
  LUTRA_TRY(counted.add(op, tensors, packed, parameters, {}));
  if (graph_) return error(Code::kOption, "the program was recorded: it takes no more operators");
  const size_t before = launches_.size();
  const std::string_view name = op_table()[static_cast<size_t>(op)].name;
  const std::span<const TensorView> t = tensors;
  Status status = error(Code::kDevice, "this operator does not run on a device");
  if (!position_.data()) LUTRA_TRY(position_.allocate(context_, sizeof(int32_t)));
  if (name == "lutGemm")
    status = lut_gemm(t, packed, narrowed<Mode>(static_cast<int64_t>(parameters[0])), parameters[1] != 0);
  if (name == "linear") status = linear(t);
  if (name == "addBias") status = add_bias(t);
  if (name == "embedding") status = embedding(t);
  if (name == "rmsNorm") status = rms_norm(t, static_cast<float>(parameters[0]));
  if (name == "rope") status = rope(t, static_cast<int64_t>(parameters[0]));
  if (name == "cacheAppend") status = cache_append(t);
  if (name == "attention") status = attention(t, parameters);
  if (name == "swiglu") status = swiglu(t);
  if (name == "add") status = add_to(t);
  if (name == "argMax") status = arg_max(t);
  // Launches that only join the one before need no memory, and are of one shape with it.
  uint64_t bytes = 0;
  for (size_t i = before; i < launches_.size() && status.ok(); ++i) status = workspace_bytes(launches_[i], &bytes);
  if (!status.ok()) {
    if (launches_.size() > before) launches_.erase(launches_.begin() + static_cast<ptrdiff_t>(before), launches_.end());
    return status;
  }
  std::move(keep.begin(), keep.end(), std::back_inserter(keep_));
  ++steps_;
  return ok_status();
}

Status DeviceProgram::run(const StepScalars& scalars, const CancelToken* cancel) {
  if (launches_.empty()) return ok_status();
  const std::lock_guard lock(running_);
  if (cancel && cancel->cancelled()) return error(Code::kCancelled, "cancelled");
  if (scalars.position < 0 || scalars.position > last_position_)
    return error(Code::kOption, "the position leaves no room for the step's rows", scalars.position, last_position_);
  if (!graph_) LUTRA_TRY(record());
  const int32_t position = static_cast<int32_t>(scalars.position);
  return context_->call([&](auto& table, auto* context) {
    int32_t result = table.upload(context, nullptr, position_.data(), &position, sizeof position);
    if (result == LUTRA_CUDA_OK) result = table.replay(context, nullptr, graph_);
    if (result == LUTRA_CUDA_OK) result = table.synchronize(context, nullptr);
    return result;
  });
}

Status DeviceProgram::workspace_bytes(const Arguments& arguments, uint64_t* bytes) {
  *bytes = 0;
  return std::visit(
      [&]<typename Op>(const Op& op) -> Status {
        if constexpr (!meets<Op>()) return ok_status();
        return context_->call(
            [&](auto& table, auto* context) { return table.workspace(context, op_of<Op>(), &op, bytes); });
      },
      arguments);
}

Status DeviceProgram::make_workspaces() {
  std::vector<SharedWorkspace> known;
  for (Arguments& arguments : launches_) {
    const auto make = [&]<typename Op>(Op& op) -> Status {
      if constexpr (meets<Op>()) {
        uint64_t bytes = 0;
        LUTRA_TRY(workspace_bytes(arguments, &bytes));
        const auto same = [&](const SharedWorkspace& w) {
          return w.op == op_of<Op>() && w.bytes == bytes && w.shape == shape_of(op);
        };
        auto found = std::find_if(known.begin(), known.end(), same);
        if (found == known.end()) {
          workspaces_.push_back(std::make_unique<DeviceBuffer>());
          LUTRA_TRY(workspaces_.back()->allocate(context_, bytes));
          LUTRA_TRY(workspaces_.back()->clear());
          found = known.insert(known.end(), {op_of<Op>(), shape_of(op), bytes, workspaces_.back()->data()});
        }
        op.workspace = found->memory;
      }
      return ok_status();
    };
    LUTRA_TRY(std::visit(make, arguments));
  }
  return ok_status();
}

Status DeviceProgram::record() {
  workspaces_.clear();
  LUTRA_TRY(make_workspaces());
  return context_->call([&](auto& table, auto* context) {
    int32_t result = table.begin_capture(context, nullptr);
    if (result != LUTRA_CUDA_OK) return result;
    for (const Arguments& arguments : launches_)
      if (result == LUTRA_CUDA_OK)
        result = std::visit([&]<typename Op>(const Op& op) { return table.launch(context, nullptr, op_of<Op>(), &op); },
                            arguments);
    // Also where a launch was refused: the stream must not stay in capture.
    LutraCudaGraph* graph = nullptr;
    const int32_t ended = table.end_capture(context, nullptr, &graph);
    if (result == LUTRA_CUDA_OK) result = ended;
    if (result == LUTRA_CUDA_OK) graph_ = graph;
    if (result != LUTRA_CUDA_OK && ended == LUTRA_CUDA_OK) table.destroy_graph(context, graph);
    return result;
  });
}

Status DeviceProgram::fits_position(int64_t rows, int64_t capacity) {
  if (rows > capacity) return error(Code::kShape, "more rows than the capacity", rows, capacity);
  last_position_ = std::min(last_position_, capacity - rows);
  return ok_status();
}

}  // namespace lutra
