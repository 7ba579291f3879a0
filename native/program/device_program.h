// A model step on a device: the same operators on copies of the operands in device memory, recorded as one graph with
// the first run and replayed from then on. What changes from run to run is the content of the copies, which only
// DeviceBuffer::upload changes from here, and the position, which the kernels read from device memory.
//
// What stands side by side in a step is launched together: a sum into the residual stream with the norm behind it, both
// rotations with both caches.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <variant>
#include <vector>

#include "core/cancel.h"
#include "device/device_memory.h"
#include "ops/lut_gemm.h"
#include "program/program.h"

namespace lutra {

class DeviceProgram {
 public:
  explicit DeviceProgram(std::shared_ptr<DeviceContext> context) : context_(std::move(context)) {}
  ~DeviceProgram();
  DeviceProgram(const DeviceProgram&) = delete;
  DeviceProgram& operator=(const DeviceProgram&) = delete;

  // As Program::add; data of the views lies on the device, codes in the order of fragments. Shapes are checked here:
  // kDevice for an operator that no device has, and for operands that its kernel does not take. Not while run() is
  // under way.
  Status add(int op, std::span<const TensorView> tensors, std::span<const PackedView> packed,
             std::span<const double> parameters, std::vector<std::shared_ptr<void>> keep);

  // Returns when the device is done. The first run makes the workspaces and records. One run at a time: a second one
  // waits.
  Status run(const StepScalars& scalars, const CancelToken* cancel);

  size_t size() const { return steps_; }
  size_t launches() const { return launches_.size(); }
  const std::shared_ptr<DeviceContext>& context() const { return context_; }

 private:
  using Arguments = std::variant<LutraCudaLutGemm, LutraCudaMatrixVector, LutraCudaAdd, LutraCudaEmbedding,
                                 LutraCudaRmsNorm, LutraCudaRope, LutraCudaAttention, LutraCudaSwiglu, LutraCudaArgMax>;

  // Bytes in which the blocks of a launch meet; refuses what its kernel does not take.
  Status workspace_bytes(const Arguments& arguments, uint64_t* bytes);
  Status make_workspaces();
  Status record();

  Status lut_gemm(std::span<const TensorView> t, std::span<const PackedView> packed, Mode mode, bool batch_invariant);
  Status linear(std::span<const TensorView> t);
  Status add_bias(std::span<const TensorView> t);
  Status embedding(std::span<const TensorView> t);
  Status rms_norm(std::span<const TensorView> t, float epsilon);
  Status rope(std::span<const TensorView> t, int64_t head_dim);
  Status cache_append(std::span<const TensorView> t);
  Status attention(std::span<const TensorView> t, std::span<const double> parameters);
  Status swiglu(std::span<const TensorView> t);
  Status arg_max(std::span<const TensorView> t);
  Status add_to(std::span<const TensorView> t);
  Status fits_position(int64_t rows, int64_t capacity);
  template <typename Op>
  Op* last() {
    return launches_.empty() ? nullptr : std::get_if<Op>(&launches_.back());
  }

  std::shared_ptr<DeviceContext> context_;
  std::vector<Arguments> launches_;
  std::vector<std::shared_ptr<void>> keep_;
  std::vector<std::unique_ptr<DeviceBuffer>> workspaces_;
  DeviceBuffer position_;
  std::mutex running_;
  LutraCudaGraph* graph_ = nullptr;
  size_t steps_ = 0;
  int64_t last_position_ = INT32_MAX;  // for which all operands have their rows
};

}  // namespace lutra
