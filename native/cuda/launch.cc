// Operators by their number: checks what they are given and launches their kernels.
#include "cuda/launch.h"

#include "cuda/lut_gemm/baselines.h"
#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/decode_kernels.h"

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

struct LutGemmLaunch {
  PackedLayout layout;
  SubBranch branch;
  DecodePlan plan;
  DecodeArguments args;
};

PackedLayout layout_of(const LutraCudaMatrix& w) {
  PackedLayout layout;
  layout.rows = w.rows;
  layout.cols = w.cols;
  layout.group_size = w.group_size;
  layout.bits = w.bits;
  layout.kind = narrowed<WeightKind>(w.kind);
  layout.offset_kind = narrowed<OffsetKind>(w.offset_kind);
  layout.scale_dtype = narrowed<Dtype>(w.scale_dtype);
  layout.offset_dtype = narrowed<Dtype>(w.offset_dtype);
  return layout;
}

int32_t prepare(LutraCudaContext& context, const LutraCudaLutGemm& op, LutGemmLaunch* launch) {
  const LutraCudaMatrix& w = op.w;
  launch->layout = layout_of(w);
  launch->branch = {w.branch_rank,    narrowed<Dtype>(w.branch_dtype), w.branch_a, w.branch_b, w.branch_a_scales,
                    w.branch_b_scales};
  if (!check_layout(launch->layout).ok()) return refuse(context, "the layout of the weights is not one");
  launch->plan = plan_decode(launch->layout, w.branch_rank, context.slots);
  const Status status =
      decode_arguments(launch->layout, launch->branch, launch->plan, op.tokens, narrowed<Dtype>(op.x_dtype),
                       narrowed<Dtype>(op.y_dtype), op.parts, &launch->args);
  return status.ok() ? LUTRA_CUDA_OK : refuse(context, status.what);
}

const void* kernel_of(const LutGemmLaunch& launch) {
  using Source = DecodeKernels (*)();
  // [f16, bf16][uniform, planes][2, 3, 4 bits]
  constexpr Source kSources[2][2][3] = {{{decode_f16_uniform2, decode_f16_uniform3, decode_f16_uniform4},
                                         {decode_f16_planes2, decode_f16_planes3, decode_f16_planes4}},
                                        {{decode_bf16_uniform2, decode_bf16_uniform3, decode_bf16_uniform4},
                                         {decode_bf16_planes2, decode_bf16_planes3, decode_bf16_planes4}}};
  const bool half = launch.args.x_dtype == kStoredF16;
  const bool planes = launch.layout.kind == WeightKind::kPlanes;
  const int columns = decode_column_tiles(launch.args.tokens, launch.args.parts);
  return kSources[half ? 0 : 1][planes ? 1 : 0][launch.layout.bits - 2]().by_columns[columns / 2];
}

int32_t lut_gemm(LutraCudaContext& context, cudaStream_t stream, const LutraCudaLutGemm& op) {
  LutGemmLaunch launch;
  const int32_t prepared = prepare(context, op, &launch);
  if (prepared != LUTRA_CUDA_OK) return prepared;
  if (!op.x || !op.y || !op.w.codes || !op.w.scales || !op.workspace) return refuse(context, "an operand is null");
  if (launch.layout.offset_kind != OffsetKind::kNone && !op.w.offsets) return refuse(context, "offsets are null");
  DecodeArguments& args = launch.args;
  uint8_t* const memory = static_cast<uint8_t*>(op.workspace);
  args.codes = static_cast<const uint32_t*>(op.w.codes);
  args.scales = op.w.scales;
  args.offsets = op.w.offsets;
  args.x = op.x;
  args.y = op.y;
  args.counters = reinterpret_cast<uint32_t*>(memory);
  args.partials = reinterpret_cast<float*>(memory + counter_bytes(launch.plan.counters));
  args.branch.a = launch.branch.a;
  args.branch.b = launch.branch.b;
  args.branch.a_scales = launch.branch.a_scales;
  args.branch.b_scales = launch.branch.b_scales;
  args.branch.sums = args.partials + launch.plan.partials_floats;
  const int row_tiles = decode_row_tiles(launch.layout.kind == WeightKind::kPlanes);
  const int64_t blocks = decode_row_blocks(args.rows, row_tiles) * args.splits;
  const int columns = decode_column_tiles(args.tokens, args.parts);
  return start(context, stream, kernel_of(launch), blocks, kDecodeThreads,
               static_cast<size_t>(decode_shared_bytes(columns)), &args);
}

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
  LutGemmLaunch launch;
  const int32_t prepared = prepare(*context, *lut, &launch);
  if (prepared == LUTRA_CUDA_OK)
    *bytes = counter_bytes(launch.plan.counters) +
             static_cast<uint64_t>(launch.plan.partials_floats + launch.plan.branch_floats) * sizeof(float);
  return prepared;
}

int32_t launch(LutraCudaContext* context, LutraCudaStream* handle, int32_t op, const void* arguments) {
  const cudaStream_t stream = stream_of(*context, handle);
  const auto with = [&](auto* typed, auto&& run) {
    return typed ? run(*context, stream, *typed) : refuse(*context, "the arguments are of another version");
  };
  switch (op) {
    case LUTRA_CUDA_OP_LUT_GEMM:
      return with(checked<LutraCudaLutGemm>(arguments), lut_gemm);
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
