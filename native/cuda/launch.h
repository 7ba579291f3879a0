// What launches share: starting a kernel, and the memory that their blocks meet in.
#pragma once

#include "core/checked.h"
#include "cuda/context.h"

namespace lutra::cuda {

// `arguments`: the kernel's one argument.
int32_t start(LutraCudaContext& context, cudaStream_t stream, const void* kernel, int64_t blocks, int threads,
              size_t shared_bytes, void* arguments);

// A workspace begins with counters; what follows them lies on a boundary of its own.
inline size_t counter_bytes(int64_t counters) { return static_cast<size_t>(round_up(counters * 4, 256)); }

// Products with packed weights (lut_gemm_launch.cc).
int32_t launch_lut_gemm(LutraCudaContext& context, cudaStream_t stream, const LutraCudaLutGemm& op);
int32_t lut_gemm_workspace(LutraCudaContext& context, const LutraCudaLutGemm& op, uint64_t* bytes);

// Operators of a model step (step_launch.cc).
int32_t launch_step(LutraCudaContext& context, cudaStream_t stream, int32_t op, const void* arguments);
int32_t step_workspace(LutraCudaContext& context, int32_t op, const void* arguments, uint64_t* bytes);

// The struct of an operator, if the caller's is of the same size.
template <typename Op>
const Op* checked(const void* arguments) {
  const Op* const op = static_cast<const Op*>(arguments);
  return op && op->bytes == sizeof(Op) ? op : nullptr;
}

}  // namespace lutra::cuda
