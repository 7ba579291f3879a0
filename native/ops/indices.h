// Numbers that become addresses. Their tensor is JavaScript's, which can write to it while a job runs: every number is
// read once, and it is the copy that is checked and used.
#pragma once

#include "core/aligned_buffer.h"
#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/operand.h"

namespace lutra {

class Indices {
 public:
  // Takes the elements of an i32 tensor; kOption says `what` where one lies outside [low, end).
  Status take(const TensorView& values, int64_t low, int64_t end, const char* what) {
    const size_t bytes = static_cast<size_t>(values.elements()) * sizeof(int32_t);
    copy_ = AlignedBuffer(bytes);
    if (!copy_) return out_of_memory(static_cast<int64_t>(bytes));
    for (int64_t i = 0; i < values.elements(); ++i) {
      const int32_t value = __atomic_load_n(values.as<int32_t>() + i, __ATOMIC_RELAXED);
      if (value < low || value >= end) return error(Code::kOption, what, value, end);
      copy_.as<int32_t>()[i] = value;
    }
    return ok_status();
  }
  int32_t operator[](int64_t i) const { return copy_.as<int32_t>()[i]; }

 private:
  AlignedBuffer copy_;
};

}  // namespace lutra
