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
constexpr int64_t kPanelTiles = 4;  // whose sums a slot has in hand: 64 KiB each at most
constexpr int64_t kBlocksPerPart = 16;

LutFloat float_type(Dtype dtype) {
  if (dtype == Dtype::kF16) return LutFloat::kF16;
  return dtype == Dtype::kBF16 ? LutFloat::kBF16 : LutFloat::kF32;
}

// Activations of a batch of tokens laid out for panels; for each slot a panel and the sums of the tiles it has in hand:
// y itself would be written once a panel, its rows a power of two apart.
struct PanelSpace {
  PanelSpace(const LutPanelKernels& kernels, int64_t cols, int64_t tokens, int64_t slots)
      : panels(ceil_div(cols, kernels.cols)),
        prepared_bytes(kernels.prepared_bytes(tokens)),
        panel_bytes(kernels.panel_bytes),
        sums_floats(tokens * kLutTileRows),
        slot_bytes(panel_bytes + kPanelTiles * sums_floats * 4),
        bytes(panels * prepared_bytes + slots * slot_bytes) {}

  uint8_t* prepared(void* scratch, int64_t panel) const {
    return static_cast<uint8_t*>(scratch) + panel * prepared_bytes;
  }
  uint8_t* panel(void* scratch, int64_t slot) const { return prepared(scratch, panels) + slot * slot_bytes; }
  float* sums(void* scratch, int64_t slot, int64_t tile) const {
    return reinterpret_cast<float*>(panel(scratch, slot) + panel_bytes) + tile * sums_floats;
  }

  int64_t panels;
  int64_t prepared_bytes;
  int64_t panel_bytes;
  int64_t sums_floats;
  int64_t slot_bytes;
  int64_t bytes;
};

// A few tiles times a batch of tokens, panel by panel in the order of columns: what is prepared of a panel's columns is
// read for all tiles while it is near.
void multiply_by_panels(const LutPanelKernels& kernels, const PackedView& weights, int64_t begin, int64_t end,
                        const PanelSpace& space, void* scratch, int64_t slot, int64_t tokens, float* y) {
  for (int64_t p = 0; p < space.panels; ++p) {
    const int64_t first = p * kernels.cols;
    const int64_t last = std::min(weights.layout.cols, first + kernels.cols);
    for (int64_t t = begin; t < end; ++t) {
      const LutTile tile = lut_tile(weights, t);
      kernels.expand(tile, first, last, space.panel(scratch, slot));
      kernels.multiply(tile, first, last, space.panel(scratch, slot), space.prepared(scratch, p), tokens,
                       space.sums(scratch, slot, t - begin), p > 0);
    }
  }
  for (int64_t t = begin; t < end; ++t) {
    const float* sums = space.sums(scratch, slot, t - begin);
    const int64_t rows = std::min(kLutTileRows, weights.layout.rows - t * kLutTileRows);
    for (int64_t token = 0; token < tokens; ++token)
      std::copy_n(sums + token * kLutTileRows, rows, y + token * weights.layout.rows + t * kLutTileRows);
  }
}

// x and y are one batch of tokens.
bool run_panel_batch(const LutPanelKernels& kernels, Context& context, const PackedView& weights, const float* x,
                     float* y, int64_t tokens, const PanelSpace& space, void* scratch) {
  const PackedLayout& layout = weights.layout;
  const int64_t slots = context.lanes();
  const bool prepared = context.parallel(space.panels, [&](int64_t p) {
    const int64_t first = p * kernels.cols;
    kernels.prepare(x, layout.cols, tokens, first, std::min(layout.cols, first + kernels.cols), layout.group_size,
                    space.prepared(scratch, p));
  });
  if (!prepared) return false;
  const int64_t tile_products = kLutTileRows * layout.cols * tokens;
  const int64_t region = slots * std::max<int64_t>(1, kRegionProducts / tile_products);
  for (int64_t begin = 0; begin < layout.tiles(); begin += region) {
    const int64_t count = std::min(region, layout.tiles() - begin);
    // Slot s owns panel s and a fixed range of tiles; a tile's bits do not depend on who computes it.
    const bool done = context.parallel(slots, [&](int64_t slot) {
      const int64_t end = begin + count * (slot + 1) / slots;
      for (int64_t t = begin + count * slot / slots; t < end; t += kPanelTiles)
        multiply_by_panels(kernels, weights, t, std::min(end, t + kPanelTiles), space, scratch, slot, tokens, y);
    });
    if (!done) return false;
  }
  return true;
}

Status run_panels(const LutPanelKernels& kernels, Context& context, const PackedView& weights, const TensorView& x,
                  const TensorView& y) {
  const PackedLayout& layout = weights.layout;
  const PanelSpace space(kernels, layout.cols, std::min(kPanelTokens, x.rows()), context.lanes());
  void* scratch = context.scratch(static_cast<size_t>(space.bytes));
  if (!scratch) return error(Code::kOutOfMemory, "lut_gemm scratch");
  for (int64_t token = 0; token < x.rows(); token += kPanelTokens) {
    const int64_t tokens = std::min(kPanelTokens, x.rows() - token);
    if (!run_panel_batch(kernels, context, weights, x.as<const float>() + token * layout.cols,
                         y.as<float>() + token * layout.rows, tokens, space, scratch))
      return error(Code::kCancelled, "lut_gemm");
  }
  return ok_status();
}

bool run_table_batch(const LutGemmKernels& kernels, LutMode mode, Context& context, const PackedView& weights,
                     const TensorView& x, float* y, const LutTableSpace& space, void* scratch) {
  const PackedLayout& layout = weights.layout;
  const int64_t tokens = x.rows();
  if (!build_lut_tables(kernels, mode, context, layout, x, space, scratch)) return false;
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
                           y + token * layout.rows + t * PackedLayout::kTileRows, false);
    });
    if (!done) return false;
  }
  return true;
}

Status run_tables(const LutGemmKernels& kernels, LutMode mode, Context& context, const PackedView& weights,
                  const TensorView& x, const TensorView& y) {
  const PackedLayout& layout = weights.layout;
  const LutTableSpace space(kernels, mode, layout.cols, std::min(kLutTableTokens, x.rows()));
  void* scratch = context.scratch(space.bytes());
  if (!scratch) return error(Code::kOutOfMemory, "lut_gemm scratch");
  for (int64_t token = 0; token < x.rows(); token += kLutTableTokens) {
    const int64_t tokens = std::min(kLutTableTokens, x.rows() - token);
    const TensorView batch = {x.as<float>() + token * layout.cols, Dtype::kF32, 2, {tokens, layout.cols}};
    if (!run_table_batch(kernels, mode, context, weights, batch, y.as<float>() + token * layout.rows, space, scratch))
      return error(Code::kCancelled, "lut_gemm");
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
                     LutOptions options) {
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
  if (options.mode > Mode::kFast)
    return error(Code::kOption, "no such accuracy mode", static_cast<int64_t>(options.mode));
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

const LutPanelKernels* lut_panels(const LutGemmKernels& kernels, const PackedLayout& layout, int64_t tokens,
                                  LutOptions options) {
  if (options.batch_invariant) return nullptr;
  return kernels.panels(static_cast<LutMode>(options.mode), layout.bits, layout.kind == WeightKind::kPlanes,
                        layout.group_size, tokens);
}

Status lut_gemm_with(const LutGemmKernels& kernels, Context& context, const PackedView& weights, const TensorView& x,
                     const TensorView& y, LutOptions options) {
  LUTRA_TRY(check_product(kernels, weights, x, y, options));
  if (x.rows() == 0) return ok_status();
  if (const LutPanelKernels* panels = lut_panels(kernels, weights.layout, x.rows(), options))
    return run_panels(*panels, context, weights, x, y);
  return run_tables(kernels, static_cast<LutMode>(options.mode), context, weights, x, y);
}

Status lut_gemm(Context& context, const PackedView& weights, const TensorView& x, const TensorView& y,
                LutOptions options) {
  return lut_gemm_with(lut_gemm_kernels(weights.layout.bits), context, weights, x, y, options);
}

}  // namespace lutra
