// What several products with one x share, kept beyond one call.
#pragma once

#include <vector>

#include "core/aligned_buffer.h"
#include "ops/lut_gemm.h"

namespace lutra {

class LutPrepared {
 public:
  // Lays out x for these weights, which must be alike and outlive this; its memory serves every later call. x may
  // change or go afterwards. Until it succeeds, nothing is prepared.
  Status prepare(Context& context, std::vector<PackedView> weights, const TensorView& x, LutOptions options);

  // y = x * weights[weight]^T, bit for bit what lut_gemm gives for this x.
  Status multiply(Context& context, size_t weight, const TensorView& y) const;

  // Held for what is prepared, or for the next call.
  size_t bytes() const { return memory_.bytes(); }

 private:
  std::vector<PackedView> weights_;
  LutOptions options_{Mode::kAccurate};
  int64_t tokens_ = 0;
  bool ready_ = false;
  AlignedBuffer memory_;
};

}  // namespace lutra
