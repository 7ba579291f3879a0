// Products with packed weights: the decode kernel for few tokens, the prefill kernels for more.
#include "cuda/launch.h"
#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/decode_kernels.h"
#include "cuda/lut_gemm/prefill.h"
#include "cuda/lut_gemm/prefill_kernels.h"

namespace lutra::cuda {

namespace {

constexpr size_t kSharedWithoutAsking = 48 * 1024;

struct Product {
  PackedLayout layout;
  SubBranch branch;
};

struct DecodeLaunch {
  DecodePlan plan;
  DecodeArguments args;
};

struct PrefillLaunch {
  PrefillPlan plan;
  PrefillArguments args;
};

Product product_of(const LutraCudaMatrix& w) {
  Product product;
  PackedLayout& layout = product.layout;
  layout.rows = w.rows;
  layout.cols = w.cols;
  layout.group_size = w.group_size;
  layout.bits = w.bits;
  layout.kind = narrowed<WeightKind>(w.kind);
  layout.offset_kind = narrowed<OffsetKind>(w.offset_kind);
  layout.scale_dtype = narrowed<Dtype>(w.scale_dtype);
  layout.offset_dtype = narrowed<Dtype>(w.offset_dtype);
  product.branch = {w.branch_rank,    narrowed<Dtype>(w.branch_dtype), w.branch_a, w.branch_b, w.branch_a_scales,
                    w.branch_b_scales};
  return product;
}

// The decode kernel's registers hold 16 tokens and 32 columns.
bool is_prefill(const LutraCudaLutGemm& op) {
  return op.tokens > kMaxDecodeTokens || op.tokens * op.parts > 8 * kMaxColumnTiles;
}

// What the plans divide by is checked before them.
int32_t check(LutraCudaContext& context, const LutraCudaLutGemm& op, const PackedLayout& layout) {
  if (!check_layout(layout).ok()) return refuse(context, "the layout of the weights is not one");
  if (op.tokens < 1 || op.tokens > kMaxPrefillTokens) return refuse(context, "tokens out of range");
  if (op.parts < 1 || op.parts > 3) return refuse(context, "1 to 3 parts");
  return LUTRA_CUDA_OK;
}

int32_t prepare(LutraCudaContext& context, const LutraCudaLutGemm& op, const Product& product, DecodeLaunch* launch) {
  launch->plan = plan_decode(product.layout, product.branch.rank, context.slots);
  const Status status =
      decode_arguments(product.layout, product.branch, launch->plan, op.tokens, narrowed<Dtype>(op.x_dtype),
                       narrowed<Dtype>(op.y_dtype), op.parts, &launch->args);
  return status.ok() ? LUTRA_CUDA_OK : refuse(context, status.what);
}

int32_t prepare(LutraCudaContext& context, const LutraCudaLutGemm& op, const Product& product, PrefillLaunch* launch) {
  launch->plan =
      plan_prefill(product.layout, product.branch.rank, op.tokens, op.parts, {context.slots / 2, context.shared_bytes});
  const Status status =
      prefill_arguments(product.layout, product.branch, launch->plan, op.tokens, narrowed<Dtype>(op.x_dtype),
                        narrowed<Dtype>(op.y_dtype), op.parts, &launch->args);
  return status.ok() ? LUTRA_CUDA_OK : refuse(context, status.what);
}

// The operator's memory; what follows the partials in its workspace is returned.
void* bind(const LutraCudaLutGemm& op, const SubBranch& branch, int64_t counters, int64_t partials_floats,
           DecodeArguments& args) {
  uint8_t* const memory = static_cast<uint8_t*>(op.workspace);
  args.codes = static_cast<const uint32_t*>(op.w.codes);
  args.scales = op.w.scales;
  args.offsets = op.w.offsets;
  args.x = op.x;
  args.y = op.y;
  args.counters = reinterpret_cast<uint32_t*>(memory);
  args.partials = reinterpret_cast<float*>(memory + counter_bytes(counters));
  args.branch.a = branch.a;
  args.branch.b = branch.b;
  args.branch.a_scales = branch.a_scales;
  args.branch.b_scales = branch.b_scales;
  return args.partials + partials_floats;
}

const void* kernel_of(const PackedLayout& layout, const DecodeArguments& args) {
  using Source = DecodeKernels (*)();
  // [f16, bf16][uniform, planes][2, 3, 4 bits]
  constexpr Source kSources[2][2][3] = {{{decode_f16_uniform2, decode_f16_uniform3, decode_f16_uniform4},
                                         {decode_f16_planes2, decode_f16_planes3, decode_f16_planes4}},
                                        {{decode_bf16_uniform2, decode_bf16_uniform3, decode_bf16_uniform4},
                                         {decode_bf16_planes2, decode_bf16_planes3, decode_bf16_planes4}}};
  const int type = args.x_dtype == kStoredF16 ? 0 : 1;
  const int kind = layout.kind == WeightKind::kPlanes ? 1 : 0;
  return kSources[type][kind][layout.bits - 2]().by_columns[decode_column_tiles(args.tokens, args.parts) / 2];
}

const void* kernel_of(const PackedLayout& layout, const PrefillArguments& args) {
  using Source = PrefillKernels (*)();
  constexpr Source kSources[2][2][3] = {{{prefill_f16_uniform2, prefill_f16_uniform3, prefill_f16_uniform4},
                                         {prefill_f16_planes2, prefill_f16_planes3, prefill_f16_planes4}},
                                        {{prefill_bf16_uniform2, prefill_bf16_uniform3, prefill_bf16_uniform4},
                                         {prefill_bf16_planes2, prefill_bf16_planes3, prefill_bf16_planes4}}};
  const int type = args.product.x_dtype == kStoredF16 ? 0 : 1;
  const int kind = layout.kind == WeightKind::kPlanes ? 1 : 0;
  return kSources[type][kind][layout.bits - 2]().by_columns[args.block_columns / 128];
}

int32_t launch_decode(LutraCudaContext& context, cudaStream_t stream, const LutraCudaLutGemm& op,
                      const Product& product) {
  DecodeLaunch launch;
  const int32_t prepared = prepare(context, op, product, &launch);
  if (prepared != LUTRA_CUDA_OK) return prepared;
  DecodeArguments& args = launch.args;
  args.branch.sums =
      static_cast<float*>(bind(op, product.branch, launch.plan.counters, launch.plan.partials_floats, args));
  const int row_tiles = decode_row_tiles(product.layout.kind == WeightKind::kPlanes);
  const int64_t blocks = decode_row_blocks(args.rows, row_tiles) * args.splits;
  const int columns = decode_column_tiles(args.tokens, args.parts);
  return start(context, stream, kernel_of(product.layout, args), blocks, kDecodeThreads,
               static_cast<size_t>(decode_shared_bytes(columns)), &args);
}

int32_t launch_prefill(LutraCudaContext& context, cudaStream_t stream, const LutraCudaLutGemm& op,
                       const Product& product) {
  PrefillLaunch launch;
  int32_t result = prepare(context, op, product, &launch);
  if (result != LUTRA_CUDA_OK) return result;
  PrefillArguments& args = launch.args;
  // The copies of 16 bytes need x_fragments on such a boundary: partials are made whole.
  const int64_t partials = round_up(launch.plan.partials_floats, 64);
  args.x_fragments = static_cast<uint32_t*>(bind(op, product.branch, launch.plan.counters, partials, args.product));
  args.rank_fragments = args.x_fragments + launch.plan.x_words;
  const PrefillSteps steps = args.product.x_dtype == kStoredF16 ? prefill_steps_f16() : prefill_steps_bf16();
  const void* const kernel = kernel_of(product.layout, args);
  const int shared = prefill_shared_bytes(product.layout.bits, args.block_columns, args.stages);
  if (shared > context.shared_bytes) return refuse(context, "the device has too little shared memory");
  if (static_cast<size_t>(shared) > kSharedWithoutAsking)
    result = outcome(context, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                     "cudaFuncSetAttribute");
  if (result == LUTRA_CUDA_OK)
    result = start(context, stream, steps.lay_out, prefill_layout_blocks(args), kPrefillThreads, 0, &args);
  if (result == LUTRA_CUDA_OK && product.branch.rank > 0)
    result = start(context, stream, steps.ranks, prefill_branch_blocks(args), kPrefillThreads, 0, &args);
  if (result != LUTRA_CUDA_OK) return result;
  return start(context, stream, kernel, prefill_blocks(args), kPrefillThreads, static_cast<size_t>(shared), &args);
}

}  // namespace

int32_t lut_gemm_workspace(LutraCudaContext& context, const LutraCudaLutGemm& op, uint64_t* bytes) {
  const Product product = product_of(op.w);
  const int32_t checked = check(context, op, product.layout);
  if (checked != LUTRA_CUDA_OK) return checked;
  if (is_prefill(op)) {
    PrefillLaunch launch;
    const int32_t prepared = prepare(context, op, product, &launch);
    if (prepared != LUTRA_CUDA_OK) return prepared;
    const PrefillPlan& plan = launch.plan;
    const int64_t words = round_up(plan.partials_floats, 64) + plan.x_words + plan.rank_words;
    *bytes = counter_bytes(plan.counters) + static_cast<uint64_t>(words) * sizeof(uint32_t);
    return LUTRA_CUDA_OK;
  }
  DecodeLaunch launch;
  const int32_t prepared = prepare(context, op, product, &launch);
  if (prepared != LUTRA_CUDA_OK) return prepared;
  *bytes = counter_bytes(launch.plan.counters) +
           static_cast<uint64_t>(launch.plan.partials_floats + launch.plan.branch_floats) * sizeof(float);
  return LUTRA_CUDA_OK;
}

int32_t launch_lut_gemm(LutraCudaContext& context, cudaStream_t stream, const LutraCudaLutGemm& op) {
  const Product product = product_of(op.w);
  const int32_t checked = check(context, op, product.layout);
  if (checked != LUTRA_CUDA_OK) return checked;
  if (!op.x || !op.y || !op.w.codes || !op.w.scales || !op.workspace) return refuse(context, "an operand is null");
  if (product.layout.offset_kind != OffsetKind::kNone && !op.w.offsets) return refuse(context, "offsets are null");
  return is_prefill(op) ? launch_prefill(context, stream, op, product) : launch_decode(context, stream, op, product);
}

}  // namespace lutra::cuda
