// The choice of every group's grid among candidates by what their errors cost the layer's output: the least d H d^T,
// where d is what rounding changes in the group and H the group's own block of the Hessian of the layer's inputs.
#pragma once

#include <cstdint>
#include <limits>

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/rtn.h"

namespace lutra {

// Weights are clamped to +-limit, then rounded on the grid.
struct Trial {
  UniformGrid grid;
  float limit = std::numeric_limits<float>::infinity();
};

struct BlockSearch {
  const GridOptions& options;
  int64_t candidates;
  // Candidate `index` for a group that spans [lo, hi], zero included.
  Trial (*candidate)(const GridOptions& options, double lo, double hi, int64_t index);
};

// best [m, groups] is the first candidate of the least cost for every group of w f32 [m,k], whose group size and
// finiteness are checked already; hessian f64 [k,k].
Status search_blocks(Context& context, const BlockSearch& search, const TensorView& w, const TensorView& hessian,
                     int32_t* best);

}  // namespace lutra
