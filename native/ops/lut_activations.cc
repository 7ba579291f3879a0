#include "ops/lut_activations.h"

#include <algorithm>

#include "ops/sub_branch.h"

namespace lutra {

namespace {

constexpr int64_t kPanelTokens = 256;
constexpr int64_t kLine = AlignedBuffer::kAlignment;
// One parallel region stays near this many multiply-adds a lane, so that others wait for milliseconds at most.
constexpr int64_t kTilesProducts = int64_t{1} << 28;
// Lanes take each other's last parts, so small ones end them together: 8 a lane are 1 to 2 % slower out of memory.
constexpr int64_t kPartsPerLane = 32;
// Handing a part to another lane costs as much as some ten thousand of them.
constexpr int64_t kLeastProducts = int64_t{1} << 16;

int64_t batch_of(const LutPanelKernels* panels, int64_t tokens) {
  return std::min(panels ? kPanelTokens : kLutTableTokens, tokens);
}

// Tiles [first, last) of the weights one behind the other, as runs of at most `together` tiles of one weight.
template <typename Run>
void each_run(std::span<const PackedView> weights, int64_t first, int64_t last, int64_t together, Run&& run) {
  int64_t begin = 0;  // of the weight's tiles
  for (size_t i = 0; i < weights.size() && begin < last; ++i) {
    const int64_t tiles = weights[i].layout.tiles();
    const int64_t end = std::min(last - begin, tiles);
    for (int64_t t = std::max<int64_t>(0, first - begin); t < end; t += together)
      run(i, t, std::min(end, t + together));
    begin += tiles;
  }
}

}  // namespace

LutActivations::LutActivations(const LutGemmKernels& kernels, std::span<const PackedView> weights, int64_t tokens,
                               LutOptions options)
    : kernels_(kernels),
      panels_(lut_panels(kernels, weights[0].layout, tokens, options)),
      mode_(static_cast<LutMode>(options.mode)),
      weights_(weights),
      batch_(batch_of(panels_, tokens)),
      tables_(kernels, mode_, weights[0].layout.cols, panels_ ? 0 : batch_) {
  sub_branches_at_ = static_cast<int64_t>(tables_.bytes());
  if (panels_) {
    panel_count_ = ceil_div(weights[0].layout.cols, panels_->cols);
    prepared_bytes_ = panels_->prepared_bytes(batch_);
    sub_branches_at_ = panel_count_ * prepared_bytes_;
  }
  int64_t ranks = 0;
  for (const PackedView& weight : weights) ranks += weight.sub_branch.rank;
  sub_branch_bytes_ = round_up(ranks * batch_ * static_cast<int64_t>(sizeof(float)), kLine);
}

float* LutActivations::sub_branch_at(uint8_t* memory, size_t weight) const {
  int64_t ranks = 0;
  for (size_t i = 0; i < weight; ++i) ranks += weights_[i].sub_branch.rank;
  return reinterpret_cast<float*>(memory + sub_branches_at_) + ranks * batch_;
}

// Parts of the sub-branches come first, in the order of the weights; the others follow.
bool LutActivations::build(Context& context, const float* x, int64_t tokens, uint8_t* memory) const {
  int64_t parts = 0;
  for (const PackedView& weight : weights_) parts += ceil_div(weight.sub_branch.rank, sub_branch_step());
  const int64_t first = parts;
  parts += panels_ ? panel_count_ : lut_table_parts(tables_, tokens);
  return context.parallel(parts, [&](int64_t part) {
    if (part >= first) return build_part(x, tokens, part - first, memory);
    size_t weight = 0;
    for (int64_t count; part >= (count = ceil_div(weights_[weight].sub_branch.rank, sub_branch_step())); ++weight)
      part -= count;
    sub_branch_down(weights_[weight].sub_branch, x, weights_[weight].layout.cols, tokens, part * sub_branch_step(),
                    sub_branch_at(memory, weight));
  });
}

void LutActivations::build_part(const float* x, int64_t tokens, int64_t part, uint8_t* memory) const {
  const PackedLayout& layout = weights_[0].layout;
  if (!panels_) return build_lut_table_part(kernels_, mode_, layout, x, tables_, memory, part);
  const int64_t first = part * panels_->cols;
  panels_->prepare(x, layout.cols, tokens, first, std::min(layout.cols, first + panels_->cols), layout.group_size,
                   memory + part * prepared_bytes_);
}

size_t LutActivations::lane_bytes() const {
  if (!panels_) return 0;
  return static_cast<size_t>(panels_->panel_bytes + kPanelTiles * batch_ * kLutTileRows * 4);
}

bool LutActivations::multiply(Context& context, const uint8_t* memory, size_t first, std::span<const TensorView> y,
                              int64_t token, int64_t tokens, uint8_t* scratch) const {
  LaneScratch lanes(context, scratch, lane_bytes());
  const std::span<const PackedView> weights = weights_.subspan(first, y.size());
  int64_t tiles = 0;
  for (const PackedView& weight : weights) tiles += weight.layout.tiles();
  const int64_t together = panels_ ? kPanelTiles : 1;
  const int64_t tile_products = kLutTileRows * weights[0].layout.cols * tokens;
  const int64_t region = context.lanes() * std::max<int64_t>(1, kTilesProducts / tile_products);
  for (int64_t begin = 0; begin < tiles; begin += region) {
    const int64_t count = std::min(region, tiles - begin);
    const int64_t least = std::max<int64_t>(1, kLeastProducts / tile_products);
    const int64_t wanted = round_up(std::max(least, count / (context.lanes() * kPartsPerLane)), together);
    // Wide rows leave few tiles to a region: tiles share a pass where that leaves no lane without one.
    const int64_t per_part = panels_ ? std::min(wanted, ceil_div(count, context.lanes())) : wanted;
    const PartLength length = part_length(per_part * tile_products);
    const bool done = context.parallel(ceil_div(count, per_part), length, [&](int64_t part) {
      const LaneScratch::Slot slot(lanes);
      const int64_t from = begin + part * per_part;
      each_run(weights, from, std::min(begin + count, from + per_part), together,
               [&](size_t i, int64_t tile, int64_t end) {
                 float* result = y[i].as<float>() + token * weights[i].layout.rows;
                 multiply_tiles(memory, first + i, tile, end, tokens, slot.as<uint8_t>(), result);
               });
    });
    if (!done) return false;
  }
  return true;
}

void LutActivations::multiply_tiles(const uint8_t* memory, size_t weight, int64_t first, int64_t last, int64_t tokens,
                                    uint8_t* lane, float* y) const {
  if (panels_) return multiply_by_panels(memory, weight, first, last, tokens, lane, y);
  const PackedView& weights = weights_[weight];
  const int64_t rows = weights.layout.rows;
  for (int64_t t = first; t < last; ++t) {
    const LutTile tile = lut_tile(weights, t);
    const bool started = start_tile(memory, weight, tile, t, tokens, y + t * kLutTileRows, rows);
    for (int64_t token = 0; token < tokens; ++token)
      kernels_.multiply(mode_, tile, tables_.of(const_cast<uint8_t*>(memory), token),
                        y + token * rows + t * kLutTileRows, started);
  }
}

// Panel by panel in the order of columns: what is prepared of a panel's columns is read for all tiles while it is near.
// Sums stay in scratch: y itself would be written once a panel, its rows a power of two apart.
void LutActivations::multiply_by_panels(const uint8_t* memory, size_t weight, int64_t first, int64_t last,
                                        int64_t tokens, uint8_t* lane, float* y) const {
  const PackedView& weights = weights_[weight];
  const PackedLayout& layout = weights.layout;
  const auto sums = [&](int64_t t) {
    return reinterpret_cast<float*>(lane + panels_->panel_bytes) + (t - first) * batch_ * kLutTileRows;
  };
  bool started = false;
  for (int64_t t = first; t < last; ++t)
    started = start_tile(memory, weight, lut_tile(weights, t), t, tokens, sums(t), kLutTileRows);
  if (panels_->begin) panels_->begin(tokens);
  for (int64_t p = 0; p < panel_count_; ++p) {
    const int64_t begin = p * panels_->cols;
    const int64_t end = std::min(layout.cols, begin + panels_->cols);
    for (int64_t t = first; t < last; ++t) {
      const LutTile tile = lut_tile(weights, t);
      panels_->expand(tile, begin, end, lane);
      panels_->multiply(tile, begin, end, lane, memory + p * prepared_bytes_, tokens, sums(t), started || p > 0);
    }
  }
  if (panels_->end) panels_->end();
  for (int64_t t = first; t < last; ++t)
    for (int64_t token = 0; token < tokens; ++token)
      std::copy_n(sums(t) + token * kLutTileRows, lut_tile(weights, t).rows,
                  y + token * layout.rows + t * kLutTileRows);
}

bool LutActivations::start_tile(const uint8_t* memory, size_t weight, const LutTile& tile, int64_t t, int64_t tokens,
                                float* sums, int64_t stride) const {
  const SubBranch& sub_branch = weights_[weight].sub_branch;
  if (sub_branch.rank == 0) return false;
  const float* down = sub_branch_at(const_cast<uint8_t*>(memory), weight);
  sub_branch_up(sub_branch, t * kLutTileRows, tile.rows, down, tokens, sums, stride);
  return true;
}

}  // namespace lutra
