// Uniform grids whose range is chosen by what the errors cost the layer's output, not the weights alone. Grids are
// those of rtn.h: they represent zero exactly, and their scale is of the storage type before any error is taken.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/rtn.h"

namespace lutra {

// For every group of w f32 [m,k] the grid of least d H d^T, where d is what rounding to it changes in the group and H
// the group's own block of the Hessian f64 [k,k]. Tried are lo and hi shrunk by p = 1, 0.99 .. 0.01, each with the zero
// code nearest to -lo / scale and with the one on its other side; symmetric grids have one zero. The first of equals,
// so never worse than fit_grid's. Fails as fit_grid does.
Status fit_grid_to_hessian(Context& context, const GridOptions& options, const TensorView& w, const TensorView& hessian,
                           const TensorView& scales, const TensorView& zeros);

// The grid of least sum importance * d^2 with lo and hi shrunk independently, each by 1, 0.95 .. 0.05 (symmetric:
// together, by 1, 0.99 .. 0.01). importance f64 [k], not negative; a group without any counts all columns alike.
Status fit_grid_weighted(Context& context, const GridOptions& options, const TensorView& w,
                         const TensorView& importance, const TensorView& scales, const TensorView& zeros);

}  // namespace lutra
