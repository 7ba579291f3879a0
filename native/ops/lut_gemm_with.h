// lut_gemm on a kernel set of the caller's choice: what the public operators call with the selected set, and tests and
// benches with every set. Only ops and tests include this.
#pragma once

#include "kernels/lut_gemm/lut_gemm.h"
#include "ops/lut_gemm.h"

namespace lutra {

LutTile lut_tile(const PackedView& weights, int64_t tile);
Status check_weights(const PackedView& weights);
// What every product refuses, whatever the kernel set: layout, shapes, overlap, a mode or a width that is none of its.
Status check_product(const LutGemmKernels& kernels, const PackedView& weights, const TensorView& x, const TensorView& y,
                     LutOptions options);

Status lut_gemm_with(const LutGemmKernels& kernels, Context& context, const PackedView& weights, const TensorView& x,
                     const TensorView& y, LutOptions options);
Status lut_gemm_error_bound_with(const LutGemmKernels& kernels, Context& context, const PackedView& weights,
                                 const TensorView& x, const TensorView& bound, LutOptions options);

// How these tokens are multiplied: by panels, or with tables where null.
const LutPanelKernels* lut_panels(const LutGemmKernels& kernels, const PackedLayout& layout, int64_t tokens,
                                  LutOptions options);

// Where each token's tables lie in one block of scratch, a batch of at most kLutTableTokens tokens.
class LutTableSpace {
 public:
  LutTableSpace(const LutGemmKernels& kernels, LutMode mode, int64_t cols, int64_t tokens);
  size_t bytes() const { return static_cast<size_t>(token_bytes_ * tokens_); }
  int64_t blocks() const { return blocks_; }
  LutTables of(void* scratch, int64_t token) const;

 private:
  int64_t tokens_;
  int64_t blocks_;
  int64_t steps_at_;
  int64_t sums_at_;
  int64_t token_bytes_;
};

// Builds the tables of every row of x [tokens, cols]; false when cancelled.
bool build_lut_tables(const LutGemmKernels& kernels, LutMode mode, Context& context, const PackedLayout& layout,
                      const TensorView& x, const LutTableSpace& space, void* scratch);

}  // namespace lutra
