// What products with the same x share: its tables or panels, laid out once for all weights that are alike, and t = A x
// for every weight with a sub-branch. Owns no memory: a batch of tokens lies in one block of the caller's.
#pragma once

#include <span>

#include "ops/lane_scratch.h"
#include "ops/lut_gemm_with.h"

namespace lutra {

class LutActivations {
 public:
  // `tokens` of the whole call decide how they are multiplied and how many make a batch. The weights must be alike.
  LutActivations(const LutGemmKernels& kernels, std::span<const PackedView> weights, int64_t tokens,
                 LutOptions options);

  int64_t batch() const { return batch_; }
  // Of a batch, a multiple of 64.
  int64_t bytes() const { return sub_branches_at_ + sub_branch_bytes_; }
  // Scratch of all lanes that multiply.
  size_t lane_bytes(const Context& context) const { return LaneScratch::bytes(context, lane_bytes()); }

  // Lays out x [tokens, cols], at most a batch, in one parallel region; false when cancelled.
  bool build(Context& context, const float* x, int64_t tokens, uint8_t* memory) const;

  // A batch times weights[first], weights[first + 1] and so on: y[i] receives rows [token, token + tokens). One
  // parallel region over the tiles of all of them, or more where one would be long; false when cancelled.
  bool multiply(Context& context, const uint8_t* memory, size_t first, std::span<const TensorView> y, int64_t token,
                int64_t tokens, uint8_t* lanes) const;

 private:
  // Tiles that share a panel's columns of x while those are near: 64 KiB of sums each at most.
  static constexpr int64_t kPanelTiles = 4;

  size_t lane_bytes() const;  // a panel, and the sums of its tiles: [kPanelTiles][batch][kLutTileRows]
  void build_part(const float* x, int64_t tokens, int64_t part, uint8_t* memory) const;
  // Tiles [begin, end) of one weight: y [tokens, rows].
  void multiply_tiles(const uint8_t* memory, size_t weight, int64_t begin, int64_t end, int64_t tokens, uint8_t* lane,
                      float* y) const;
  void multiply_by_panels(const uint8_t* memory, size_t weight, int64_t begin, int64_t end, int64_t tokens,
                          uint8_t* lane, float* y) const;
  // Starts the sums of a tile's rows with its sub-branch; false where there is none.
  bool start_tile(const uint8_t* memory, size_t weight, const LutTile& tile, int64_t t, int64_t tokens, float* sums,
                  int64_t stride) const;
  float* sub_branch_at(uint8_t* memory, size_t weight) const;

  const LutGemmKernels& kernels_;
  const LutPanelKernels* panels_;  // null: by tables
  LutMode mode_;
  std::span<const PackedView> weights_;
  int64_t batch_;
  LutTableSpace tables_;
  int64_t panel_count_ = 0;
  int64_t prepared_bytes_ = 0;  // of a panel's columns
  int64_t sub_branches_at_ = 0;
  int64_t sub_branch_bytes_ = 0;
};

}  // namespace lutra
