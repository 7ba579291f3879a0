// lut_gemm: shape checks, activations laid out in scratch, tiles over the lanes.
#include <algorithm>
#include <cstdint>

#include "ops/lut_activations.h"
#include "ops/lut_gemm_with.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kBlocksPerPart = 16;

LutFloat float_type(Dtype dtype) {
  if (dtype == Dtype::kF16) return LutFloat::kF16;
  return dtype == Dtype::kBF16 ? LutFloat::kBF16 : LutFloat::kF32;
}

}  // namespace

LutTile lut_tile(const PackedView& weights, int64_t t) {
  const PackedLayout& layout = weights.layout;
  LutTile tile = {};
  tile.codes = weights.codes + layout.codes_at(t);
  tile.scales = static_cast<const uint8_t*>(weights.scales) +
                layout.scales_at(t) * static_cast<int64_t>(dtype_bytes(layout.scale_dtype));
  tile.stored_rows = layout.tile_rows(t);
  tile.rows = std::min(tile.stored_rows, layout.rows - t * PackedLayout::kTileRows);
  tile.cols = layout.cols;
  tile.group_size = layout.group_size;
  tile.bits = layout.bits;
  tile.planes = layout.kind == WeightKind::kPlanes;
  tile.scale_type = float_type(layout.scale_dtype);
  tile.offset_type = float_type(layout.offset_dtype);
  if (layout.offset_kind == OffsetKind::kNone) return tile;
  const bool code = layout.offset_kind == OffsetKind::kZeroCode;
  tile.offset = code ? LutOffset::kZeroCode : LutOffset::kReal;
  tile.offsets = static_cast<const uint8_t*>(weights.offsets) +
                 layout.offsets_at(t) * static_cast<int64_t>(code ? 1 : dtype_bytes(layout.offset_dtype));
  return tile;
}

Status check_weights(const PackedView& weights) {
  LUTRA_TRY(check_layout(weights.layout));
  if (!weights.codes) return error(Code::kShape, "packed weights have no codes");
  if (!weights.scales) return error(Code::kShape, "packed weights have no scales");
  if (!weights.offsets && weights.layout.offset_kind != OffsetKind::kNone)
    return error(Code::kShape, "packed weights have no offsets");
  return check_sub_branch(weights.layout, weights.sub_branch);
}

Status check_activations(const LutGemmKernels& kernels, std::span<const PackedView> weights, const TensorView& x,
                         LutOptions options) {
  if (weights.empty()) return error(Code::kOption, "a product needs weights");
  const PackedLayout& first = weights[0].layout;
  for (const PackedView& weight : weights) {
    LUTRA_TRY(check_weights(weight));
    const PackedLayout& layout = weight.layout;
    if (layout.cols != first.cols)
      return error(Code::kShape, "weights of one x must have as many columns", layout.cols, first.cols);
    if (layout.bits != first.bits || layout.group_size != first.group_size || layout.kind != first.kind)
      return error(Code::kOption, "weights of one x must be alike in bits, group size and kind");
  }
  if (x.dtype != Dtype::kF32) return error(Code::kDtype, "x must be f32");
  if (x.rank < 1 || x.cols() != first.cols)
    return error(Code::kShape, "x must have as many columns as the weights", x.cols(), first.cols);
  if (x.rows() > 0 && !x.data) return error(Code::kShape, "x must have memory");
  if (options.mode > Mode::kFast)
    return error(Code::kOption, "no such accuracy mode", static_cast<int64_t>(options.mode));
  if (first.bits < kernels.min_bits || first.bits > kernels.max_bits)
    return error(Code::kUnsupported, "this kernel set does not take this width", first.bits, kernels.max_bits);
  return ok_status();
}

Status check_result(const PackedView& weights, int64_t tokens, const TensorView& y) {
  if (y.dtype != Dtype::kF32) return error(Code::kDtype, "y must be f32");
  if (y.rank < 1 || y.cols() != weights.layout.rows)
    return error(Code::kShape, "y must have as many columns as the weights have rows", y.cols(), weights.layout.rows);
  if (y.rows() != tokens) return error(Code::kShape, "x and y must have as many tokens", y.rows(), tokens);
  return tokens > 0 && !y.data ? error(Code::kShape, "y must have memory") : ok_status();
}

LutTableSpace::LutTableSpace(const LutGemmKernels& kernels, LutMode mode, int64_t cols, int64_t tokens)
    : tokens_(tokens), blocks_(ceil_div(cols, kLutBlock)) {
  constexpr int64_t kLine = AlignedBuffer::kAlignment;
  steps_at_ = round_up(blocks_ * kernels.block_bytes[mode], kLine);
  sums_at_ = steps_at_ + round_up(blocks_ * 4, kLine);
  token_bytes_ = sums_at_ + round_up(blocks_ * (kLutBlock / 16) * 4, kLine);
}

LutTables LutTableSpace::of(void* scratch, int64_t token) const {
  uint8_t* base = static_cast<uint8_t*>(scratch) + token * token_bytes_;
  return {base, reinterpret_cast<float*>(base + steps_at_), reinterpret_cast<float*>(base + sums_at_)};
}

int64_t lut_table_parts(const LutTableSpace& space, int64_t tokens) {
  return tokens * ceil_div(space.blocks(), kBlocksPerPart);
}

void build_lut_table_part(const LutGemmKernels& kernels, LutMode mode, const PackedLayout& layout, const float* x,
                          const LutTableSpace& space, void* scratch, int64_t part) {
  const int64_t parts = ceil_div(space.blocks(), kBlocksPerPart);
  const int64_t token = part / parts;
  const int64_t first = part % parts * kBlocksPerPart;
  kernels.build(mode, x + token * layout.cols, layout.cols, layout.group_size, first,
                std::min(space.blocks(), first + kBlocksPerPart), space.of(scratch, token));
}

const LutPanelKernels* lut_panels(const LutGemmKernels& kernels, const PackedLayout& layout, int64_t tokens,
                                  LutOptions options) {
  if (options.batch_invariant) return nullptr;
  return kernels.panels(static_cast<LutMode>(options.mode), layout.bits, layout.kind == WeightKind::kPlanes,
                        layout.group_size, tokens);
}

Status lut_gemm_with(const LutGemmKernels& kernels, Context& context, std::span<const PackedView> weights,
                     const TensorView& x, std::span<const TensorView> y, LutOptions options) {
  LUTRA_TRY(check_activations(kernels, weights, x, options));
  if (y.size() != weights.size()) return error(Code::kOption, "every weight needs a result");
  for (size_t i = 0; i < y.size(); ++i) {
    LUTRA_TRY(check_result(weights[i], x.rows(), y[i]));
    LUTRA_TRY(require_apart(y[i], x, "y may not overlap x"));
    for (size_t j = 0; j < i; ++j) LUTRA_TRY(require_apart(y[i], y[j], "results may not overlap"));
  }
  if (x.rows() == 0) return ok_status();
  const LutActivations activations(kernels, weights, x.rows(), options);
  const size_t bytes = static_cast<size_t>(activations.bytes()) + activations.lane_bytes(context);
  auto* memory = static_cast<uint8_t*>(context.scratch(bytes));
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  for (int64_t token = 0; token < x.rows(); token += activations.batch()) {
    const int64_t tokens = std::min(activations.batch(), x.rows() - token);
    if (!activations.build(context, x.as<const float>() + token * x.cols(), tokens, memory) ||
        !activations.multiply(context, memory, 0, y, token, tokens, memory + activations.bytes()))
      return finished(false);
  }
  return ok_status();
}

Status lut_gemm(Context& context, std::span<const PackedView> weights, const TensorView& x,
                std::span<const TensorView> y, LutOptions options) {
  if (weights.empty()) return error(Code::kOption, "a product needs weights");
  return lut_gemm_with(lut_gemm_kernels(weights[0].layout.bits), context, weights, x, y, options);
}

}  // namespace lutra
