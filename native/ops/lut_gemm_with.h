// lut_gemm on a kernel set of the caller's choice: what the public operators call with the selected set, and tests and
// benches with every set. Only ops and tests include this.
#pragma once

#include "kernels/lut_gemm/lut_gemm.h"
#include "ops/lut_gemm.h"

namespace lutra {

LutTile lut_tile(const PackedView& weights, int64_t tile);
Status check_weights(const PackedView& weights);
// What every product refuses, whatever the kernel set: weights that are not whole or not alike, another x, a mode or a
// width that is none of its.
Status check_activations(const LutGemmKernels& kernels, std::span<const PackedView> weights, const TensorView& x,
                         LutOptions options);
Status check_result(const PackedView& weights, int64_t tokens, const TensorView& y);

Status lut_gemm_with(const LutGemmKernels& kernels, Context& context, std::span<const PackedView> weights,
                     const TensorView& x, std::span<const TensorView> y, LutOptions options);
inline Status lut_gemm_with(const LutGemmKernels& kernels, Context& context, const PackedView& weights,
                            const TensorView& x, const TensorView& y, LutOptions options) {
  return lut_gemm_with(kernels, context, {&weights, 1}, x, {&y, 1}, options);
}
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

// The tables of a batch in parts that any lane can build.
int64_t lut_table_parts(const LutTableSpace& space, int64_t tokens);
void build_lut_table_part(const LutGemmKernels& kernels, LutMode mode, const PackedLayout& layout, const float* x,
                          const LutTableSpace& space, void* scratch, int64_t part);

}  // namespace lutra
