// Operators by their number: checks what they are given and launches their kernels.
#include "cuda/launch.h"

#include "cuda/lut_gemm/baselines.h"

namespace lutra::cuda {

int32_t start(LutraCudaContext& context, cudaStream_t stream, const void* kernel, int64_t blocks, int threads,
              size_t shared_bytes, void* arguments) {
  if (blocks < 1 || blocks > 0x7fffffff) return refuse(context, "too many blocks");
  void* list[] = {arguments};
  const cudaError_t error = cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)),
                                             dim3(static_cast<unsigned>(threads)), list, shared_bytes, stream);
  return outcome(context, error, "cudaLaunchKernel");
}

namespace {

int32_t matrix_vector(LutraCudaContext& context, cudaStream_t stream, const LutraCudaMatrixVector& op) {
  const bool scaled = op.m_dtype == kStoredI8;
  const bool plain = op.m_dtype == kStoredF32 || op.m_dtype == kStoredF16 || op.m_dtype == kStoredBF16;
  if (!plain && !scaled) return refuse(context, "m is f32, f16, bf16 or i8");
  if (op.x_dtype != kStoredF32 && op.x_dtype != kStoredF16 && op.x_dtype != kStoredBF16)
    return refuse(context, "x is f32, f16 or bf16");
  if (op.rows < 1 || op.cols < 1 || op.tokens < 1) return refuse(context, "an operand is empty");
  if (!op.m || !op.x || !op.y || (scaled && !op.scales)) return refuse(context, "an operand is null");
  MatrixVectorArguments args = {
      op.m, scaled ? op.scales : nullptr, op.x, op.y, op.rows, op.cols, op.tokens, op.m_dtype, op.x_dtype};
  return start(context, stream, matrix_vector_kernel(), ceil_div(op.rows, kVectorThreads / 32), kVectorThreads, 0,
               &args);
}

int32_t add(LutraCudaContext& context, cudaStream_t stream, const LutraCudaAdd& op) {
  if (op.count < 1 || op.period < 1 || !op.u || !op.y) return refuse(context, "an operand is empty");
  AddArguments args = {op.u, op.y, op.count, op.period};
  return start(context, stream, add_kernel(), ceil_div(op.count, kVectorThreads), kVectorThreads, 0, &args);
}

int32_t published_gemv(LutraCudaContext& context, cudaStream_t stream, const LutraCudaTableGemv& op) {
  const bool fits = op.rows >= 2 && op.rows % 2 == 0 && op.cols >= kTableCols && op.cols % kTableCols == 0 &&
                    op.group_size >= kTableCols && op.group_size % kTableCols == 0;
  if (!fits) return refuse(context, "rows must be even, columns and groups multiples of 64");
  if (op.planes < 1 || op.planes > 8) return refuse(context, "1 to 8 planes");
  if (!op.codes || !op.alphas || !op.bias || !op.x || !op.y) return refuse(context, "an operand is null");
  TableArguments args = {op.codes,
                         static_cast<const uint16_t*>(op.alphas),
                         static_cast<const uint16_t*>(op.bias),
                         static_cast<const uint16_t*>(op.x),
                         static_cast<uint32_t*>(op.y),
                         op.rows,
                         op.cols,
                         op.group_size,
                         op.planes};
  const int64_t blocks = ceil_div(op.rows, kTableRows) * (op.cols / kTableCols);
  return start(context, stream, table_kernel(), blocks, kTableThreads, 0, &args);
}

}  // namespace

int32_t workspace(LutraCudaContext* context, int32_t op, const void* arguments, uint64_t* bytes) {
  *bytes = 0;
  if (op != LUTRA_CUDA_OP_LUT_GEMM) return step_workspace(*context, op, arguments, bytes);
  const auto* const lut = checked<LutraCudaLutGemm>(arguments);
  if (!lut) return refuse(*context, "the arguments are of another version");
  return lut_gemm_workspace(*context, *lut, bytes);
}

int32_t launch(LutraCudaContext* context, LutraCudaStream* handle, int32_t op, const void* arguments) {
  const cudaStream_t stream = stream_of(*context, handle);
  const auto with = [&](auto* typed, auto&& run) {
    return typed ? run(*context, stream, *typed) : refuse(*context, "the arguments are of another version");
  };
  switch (op) {
    case LUTRA_CUDA_OP_LUT_GEMM:
      return with(checked<LutraCudaLutGemm>(arguments), launch_lut_gemm);
    case LUTRA_CUDA_OP_MATRIX_VECTOR:
      return with(checked<LutraCudaMatrixVector>(arguments), matrix_vector);
    case LUTRA_CUDA_OP_ADD:
      return with(checked<LutraCudaAdd>(arguments), add);
    case LUTRA_CUDA_OP_TABLE_GEMV:
      return with(checked<LutraCudaTableGemv>(arguments), published_gemv);
    default:
      return launch_step(*context, stream, op, arguments);
  }
}

}  // namespace lutra::cuda
