// The table of asynchronous calls that are not operators of a model step: the quantizers' passes, scans and file
// transfers. A row's index is its number in lib/native/addon.ts (taskIds). Knows nothing of N-API: fuzzers call it,
// too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra::binding {

struct TaskCall {
  static constexpr size_t kMaxTensors = 8;
  static constexpr size_t kMaxParameters = 8;

  std::array<TensorView, kMaxTensors> tensors;
  std::array<double, kMaxParameters> parameters;  // finite, at most 2^53 in magnitude

  int64_t whole(int index) const { return static_cast<int64_t>(parameters[static_cast<size_t>(index)]); }
};

struct TaskRow {
  const char* name;
  size_t tensors;
  size_t parameters;
  Status (*run)(Context& context, const TaskCall& call, std::vector<double>& answer);
};

std::span<const TaskRow> task_table();

}  // namespace lutra::binding
