// The operators of a model step: checks what they are given and launches their kernels.
#include "cuda/launch.h"
#include "cuda/step_kernels.h"

namespace lutra::cuda {

namespace {

constexpr int64_t kMostElements = int64_t{1} << 38;  // 2^31 blocks of 128 threads

bool floating(int32_t dtype) { return dtype == kStoredF32 || dtype == kStoredF16 || dtype == kStoredBF16; }

// Two counts above zero whose product a launch can count.
bool countable(int64_t a, int64_t b) { return a > 0 && b > 0 && a <= kMostElements / b; }

template <typename Kernel>
int32_t start_elements(LutraCudaContext& context, cudaStream_t stream, int64_t elements,
                       typename Kernel::Arguments args) {
  return start(context, stream, step_kernel<Kernel>(), ceil_div(elements, Kernel::kThreads), Kernel::kThreads, 0,
               &args);
}

int32_t fragments(LutraCudaContext& context, cudaStream_t stream, const LutraCudaFragments& op) {
  if (op.bits < 2 || op.bits > 4) return refuse(context, "fragments hold 2 to 4 bits");
  if (!countable(op.rows, op.cols)) return refuse(context, "an operand is empty or too large");
  if (!op.tiles || !op.fragments) return refuse(context, "an operand is null");
  const int64_t words = ceil_div(op.rows, kTileRows) * ceil_div(op.cols, kUnitCols) * unit_words(op.bits);
  return start_elements<ToFragmentsKernel>(context, stream, words, op);
}

int32_t embedding(LutraCudaContext& context, cudaStream_t stream, const LutraCudaEmbedding& op) {
  if (!floating(op.table_dtype)) return refuse(context, "the table is f32, f16 or bf16");
  if (!countable(op.tokens, op.width)) return refuse(context, "an operand is empty or too large");
  if (!op.table || !op.ids || !op.y) return refuse(context, "an operand is null");
  return start_elements<EmbeddingKernel>(context, stream, op.tokens * op.width, op);
}

int32_t rms_norm(LutraCudaContext& context, cudaStream_t stream, const LutraCudaRmsNorm& op) {
  if (!floating(op.weight_dtype)) return refuse(context, "the weight is f32, f16 or bf16");
  if (!(op.epsilon >= 0)) return refuse(context, "epsilon is negative or NaN");
  if (!countable(op.tokens, op.width)) return refuse(context, "an operand is empty or too large");
  if (!op.x || !op.weight || !op.y) return refuse(context, "an operand is null");
  LutraCudaRmsNorm args = op;
  return start(context, stream, step_kernel<RmsNormKernel>(), op.tokens, RmsNormKernel::kThreads,
               RmsNormKernel::kSharedBytes, &args);
}

int32_t rope(LutraCudaContext& context, cudaStream_t stream, const LutraCudaRope& op) {
  if (!floating(op.cache_dtype)) return refuse(context, "the caches are f32, f16 or bf16");
  if (op.head_dim < 2 || op.head_dim % 2) return refuse(context, "head_dim must be positive and even");
  if (op.tokens < 1 || op.tokens > op.capacity) return refuse(context, "tokens out of range");
  if (!op.position || (!op.q && !op.k && !op.v)) return refuse(context, "an operand is null");
  if ((op.q && op.heads < 1) || ((op.k || op.v) && op.kv_heads < 1)) return refuse(context, "there are no heads");
  if ((op.keys && !op.k) || (op.v && !op.values)) return refuse(context, "a cache has nothing to hold, or v no cache");
  if (!countable(RopeKernel::pairs(op), op.tokens)) return refuse(context, "an operand is too large");
  return start_elements<RopeKernel>(context, stream, RopeKernel::pairs(op) * op.tokens, op);
}

int32_t check_attention(LutraCudaContext& context, const LutraCudaAttention& op) {
  if (!floating(op.cache_dtype)) return refuse(context, "the caches are f32, f16 or bf16");
  if (op.heads < 1 || op.kv_heads < 1 || op.heads % op.kv_heads)
    return refuse(context, "heads must be a multiple of kv_heads");
  if (op.head_dim < 1 || op.head_dim > kMaxHeadDim) return refuse(context, "head_dim out of range");
  if (op.tokens < 1 || op.tokens > op.capacity || op.capacity > 0x7fffffff)
    return refuse(context, "tokens or capacity out of range");
  if (op.window < 0) return refuse(context, "the window is negative");
  if (int64_t{op.tokens} * op.heads > 0x7fffffff) return refuse(context, "too many rows");
  return LUTRA_CUDA_OK;
}

int32_t attention(LutraCudaContext& context, cudaStream_t stream, const LutraCudaAttention& op) {
  const int32_t right = check_attention(context, op);
  if (right != LUTRA_CUDA_OK) return right;
  if (!op.position || !op.q || !op.keys || !op.values || !op.y || !op.workspace)
    return refuse(context, "an operand is null");
  const int64_t range_keys = attention_range_keys(op.capacity);
  AttentionArguments args;
  args.op = op;
  args.range_keys = static_cast<int32_t>(range_keys);
  args.ranges = static_cast<int32_t>(ceil_div(op.capacity, range_keys));
  args.counters = static_cast<uint32_t*>(op.workspace);
  args.partials = reinterpret_cast<float*>(static_cast<uint8_t*>(op.workspace) + counter_bytes(attention_counters(op)));
  const int rows = attention_block_rows(op);
  const void* const kernel = rows == 1   ? step_kernel<AttentionKernel<1>>()
                             : rows == 4 ? step_kernel<AttentionKernel<4>>()
                                         : step_kernel<AttentionKernel<8>>();
  return start(context, stream, kernel, attention_counters(op) * args.ranges, kAttentionThreads,
               static_cast<size_t>(attention_shared_bytes(op.head_dim, rows)), &args);
}

int32_t swiglu(LutraCudaContext& context, cudaStream_t stream, const LutraCudaSwiglu& op) {
  if (!countable(op.count, 1)) return refuse(context, "an operand is empty or too large");
  if (!op.gate || !op.up || !op.y) return refuse(context, "an operand is null");
  return start_elements<SwigluKernel>(context, stream, op.count, op);
}

int32_t check_arg_max(LutraCudaContext& context, const LutraCudaArgMax& op) {
  const bool fits = op.cols > 0 && op.cols <= 0x7fffffff && op.rows > 0 && op.rows <= 0x7fffffff / 64;
  return fits ? LUTRA_CUDA_OK : refuse(context, "rows or columns out of range");
}

int32_t arg_max(LutraCudaContext& context, cudaStream_t stream, const LutraCudaArgMax& op) {
  const int32_t right = check_arg_max(context, op);
  if (right != LUTRA_CUDA_OK) return right;
  if (!op.x || !op.index || !op.value || !op.workspace) return refuse(context, "an operand is null");
  ArgMaxArguments args;
  args.x = op.x;
  args.index = op.index;
  args.value = op.value;
  args.counters = static_cast<uint32_t*>(op.workspace);
  args.partials = reinterpret_cast<float*>(static_cast<uint8_t*>(op.workspace) + counter_bytes(op.rows));
  args.cols = static_cast<int32_t>(op.cols);
  args.blocks = ArgMaxKernel::blocks(op.cols);
  return start(context, stream, step_kernel<ArgMaxKernel>(), op.rows * args.blocks, ArgMaxKernel::kThreads,
               ArgMaxKernel::kSharedBytes, &args);
}

}  // namespace

int32_t step_workspace(LutraCudaContext& context, int32_t op, const void* arguments, uint64_t* bytes) {
  int32_t right = LUTRA_CUDA_OK;
  if (op == LUTRA_CUDA_OP_ATTENTION) {
    const auto* const typed = checked<LutraCudaAttention>(arguments);
    if (!typed) return refuse(context, "the arguments are of another version");
    right = check_attention(context, *typed);
    if (right == LUTRA_CUDA_OK)
      *bytes = counter_bytes(attention_counters(*typed)) + static_cast<uint64_t>(attention_partials(*typed)) * 4;
  } else if (op == LUTRA_CUDA_OP_ARG_MAX) {
    const auto* const typed = checked<LutraCudaArgMax>(arguments);
    if (!typed) return refuse(context, "the arguments are of another version");
    right = check_arg_max(context, *typed);
    if (right == LUTRA_CUDA_OK)
      *bytes = counter_bytes(typed->rows) +
               static_cast<uint64_t>(typed->rows * ArgMaxKernel::blocks(typed->cols) * ArgMaxKernel::kPartial) * 4;
  }
  return right;
}

int32_t launch_step(LutraCudaContext& context, cudaStream_t stream, int32_t op, const void* arguments) {
  const auto with = [&](auto* typed, auto&& run) {
    return typed ? run(context, stream, *typed) : refuse(context, "the arguments are of another version");
  };
  switch (op) {
    case LUTRA_CUDA_OP_FRAGMENTS:
      return with(checked<LutraCudaFragments>(arguments), fragments);
    case LUTRA_CUDA_OP_EMBEDDING:
      return with(checked<LutraCudaEmbedding>(arguments), embedding);
    case LUTRA_CUDA_OP_RMS_NORM:
      return with(checked<LutraCudaRmsNorm>(arguments), rms_norm);
    case LUTRA_CUDA_OP_ROPE:
      return with(checked<LutraCudaRope>(arguments), rope);
    case LUTRA_CUDA_OP_ATTENTION:
      return with(checked<LutraCudaAttention>(arguments), attention);
    case LUTRA_CUDA_OP_SWIGLU:
      return with(checked<LutraCudaSwiglu>(arguments), swiglu);
    case LUTRA_CUDA_OP_ARG_MAX:
      return with(checked<LutraCudaArgMax>(arguments), arg_max);
    default:
      return refuse(context, "there is no such operator");
  }
}

}  // namespace lutra::cuda
