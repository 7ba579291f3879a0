// lut_gemm: shape checks, tables or panels in scratch, tiles over the lanes.
#include <algorithm>
#include <cstdint>

#include "ops/lut_gemm_with.h"
#include "ops/operand.h"

namespace lutra {

namespace {

// One parallel region stays near this many multiply-adds, so that a cancel is seen within milliseconds.
constexpr int64_t kRegionProducts = int64_t{1} << 28;
constexpr int64_t kPanelTokens = 256;
constexpr int64_t kBlocksPerPart = 16;
constexpr int64_t kPanelElements = kLutPanelCols * kLutTileRows;

LutFloat float_type(Dtype dtype) {
  if (dtype == Dtype::kF16) return LutFloat::kF16;
  return dtype == Dtype::kBF16 ? LutFloat::kBF16 : LutFloat::kF32;
}

// Columns [first, first + depth) of a tile times up to kPanelTokens tokens, panel by panel.
void multiply_by_panels(const LutGemmKernels& kernels, const LutTile& tile, const float* x, int64_t tokens, float* y,
                        int64_t y_stride, float* panel) {
  for (int64_t k = 0; k < tile.cols; k += kLutPanelCols) {
    const int64_t end = std::min(tile.cols, k + kLutPanelCols);
    kernels.expand(tile, k, end, panel);
    kernels.multiply_panel(panel, end - k, tile.rows, x + k, tile.cols, tokens, y, y_stride, k > 0);
  }
}

Status run_panels(const LutGemmKernels& kernels, Context& context, const PackedView& weights, const TensorView& x,
                  const TensorView& y) {
  const PackedLayout& layout = weights.layout;
  const int64_t slots = context.lanes();
  float* panels = static_cast<float*>(context.scratch(static_cast<size_t>(slots * kPanelElements) * sizeof(float)));
  if (!panels) return error(Code::kOutOfMemory, "lut_gemm scratch");
  for (int64_t token = 0; token < x.rows(); token += kPanelTokens) {
    const int64_t tokens = std::min(kPanelTokens, x.rows() - token);
    const int64_t tile_products = PackedLayout::kTileRows * layout.cols * tokens;
    const int64_t region = slots * std::max<int64_t>(1, kRegionProducts / tile_products);
    for (int64_t first = 0; first < layout.tiles(); first += region) {
      const int64_t count = std::min(region, layout.tiles() - first);
      // Slot s owns panel s and a fixed range of tiles; a tile's bits do not depend on who computes it.
      const bool done = context.parallel(slots, [&](int64_t slot) {
        for (int64_t t = first + count * slot / slots; t < first + count * (slot + 1) / slots; ++t)
          multiply_by_panels(kernels, lut_tile(weights, t), x.as<const float>() + token * layout.cols, tokens,
                             y.as<float>() + token * layout.rows + t * PackedLayout::kTileRows, layout.rows,
                             panels + slot * kPanelElements);
      });
      if (!done) return error(Code::kCancelled, "lut_gemm");
    }
  }
  return ok_status();
}

Status run_tables(const LutGemmKernels& kernels, LutMode mode, Context& context, const PackedView& weights,
                  const TensorView& x, const TensorView& y) {
  const PackedLayout& layout = weights.layout;
  const int64_t tokens = x.rows();
  const LutTableSpace space(kernels, mode, layout.cols, tokens);
  void* scratch = context.scratch(space.bytes());
  if (!scratch) return error(Code::kOutOfMemory, "lut_gemm scratch");
  if (!build_lut_tables(kernels, mode, context, layout, x, space, scratch)) return error(Code::kCancelled, "lut_gemm");
  const int64_t tile_products = PackedLayout::kTileRows * layout.cols * tokens;
  const int64_t lanes = context.lanes();
  const int64_t region = lanes * std::max<int64_t>(1, kRegionProducts / tile_products);
  for (int64_t first = 0; first < layout.tiles(); first += region) {
    const int64_t count = std::min(region, layout.tiles() - first);
    const int64_t per_part = std::max<int64_t>(1, count / (lanes * 8));
    const bool done = context.parallel(ceil_div(count, per_part), [&](int64_t part) {
      const int64_t end = first + std::min(count, (part + 1) * per_part);
      for (int64_t t = first + part * per_part; t < end; ++t)
        for (int64_t token = 0; token < tokens; ++token)
          kernels.multiply(mode, lut_tile(weights, t), space.of(scratch, token),
                           y.as<float>() + token * layout.rows + t * PackedLayout::kTileRows);
    });
    if (!done) return error(Code::kCancelled, "lut_gemm");
  }
  return ok_status();
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
  return ok_status();
}

Status check_product(const LutGemmKernels& kernels, const PackedView& weights, const TensorView& x, const TensorView& y,
                     Mode mode) {
  LUTRA_TRY(check_weights(weights));
  if (x.dtype != Dtype::kF32) return error(Code::kDtype, "x must be f32");
  if (y.dtype != Dtype::kF32) return error(Code::kDtype, "y must be f32");
  if (x.rank < 1 || x.cols() != weights.layout.cols)
    return error(Code::kShape, "x must have as many columns as the weights", x.cols(), weights.layout.cols);
  if (y.rank < 1 || y.cols() != weights.layout.rows)
    return error(Code::kShape, "y must have as many columns as the weights have rows", y.cols(), weights.layout.rows);
  if (x.rows() != y.rows()) return error(Code::kShape, "x and y must have as many tokens", y.rows(), x.rows());
  if (x.rows() > 0 && (!x.data || !y.data)) return error(Code::kShape, "x and y must have memory");
  LUTRA_TRY(require_apart(y, x, "y may not overlap x"));
  if (mode > Mode::kFast) return error(Code::kOption, "no such accuracy mode", static_cast<int64_t>(mode));
  const int bits = weights.layout.bits;
  if (bits < kernels.min_bits || bits > kernels.max_bits)
    return error(Code::kUnsupported, "this kernel set does not take this width", bits, kernels.max_bits);
  return ok_status();
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

bool build_lut_tables(const LutGemmKernels& kernels, LutMode mode, Context& context, const PackedLayout& layout,
                      const TensorView& x, const LutTableSpace& space, void* scratch) {
  const int64_t parts = ceil_div(space.blocks(), kBlocksPerPart);
  return context.parallel(x.rows() * parts, [&](int64_t i) {
    const int64_t token = i / parts;
    const int64_t first = i % parts * kBlocksPerPart;
    kernels.build(mode, x.as<const float>() + token * layout.cols, layout.cols, layout.group_size, first,
                  std::min(space.blocks(), first + kBlocksPerPart), space.of(scratch, token));
  });
}

Status lut_gemm_with(const LutGemmKernels& kernels, Context& context, const PackedView& weights, const TensorView& x,
                     const TensorView& y, Mode mode) {
  LUTRA_TRY(check_product(kernels, weights, x, y, mode));
  if (x.rows() == 0) return ok_status();
  if (x.rows() > kLutTableTokens) return run_panels(kernels, context, weights, x, y);
  return run_tables(kernels, static_cast<LutMode>(mode), context, weights, x, y);
}

Status lut_gemm(Context& context, const PackedView& weights, const TensorView& x, const TensorView& y, Mode mode) {
  return lut_gemm_with(lut_gemm_kernels(weights.layout.bits), context, weights, x, y, mode);
}

}  // namespace lutra
