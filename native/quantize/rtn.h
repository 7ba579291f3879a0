// Fitting a uniform grid to every group of a row.
//
// Groups are group_size consecutive columns, the last one ragged; -1 makes the row one group. The grid always
// represents zero exactly: w ~ scale * (code - zero), zero an integer in [0, 2^bits - 1].
//   asymmetric: lo = min(w, 0), hi = max(w, 0); scale = (hi - lo) / (2^bits - 1); zero = round(-lo / scale), halves up
//   symmetric:  scale = 2 max|w| / (2^bits - 1); zero = 2^(bits - 1)
// Scales are rounded up to their storage type before anything uses them, so no weight of the group lies further than
// scale / 2 from its code, both extremes included. A group of zeros gets scale 1 and codes that give exactly 0.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/grid.h"

namespace lutra {

struct GridOptions {
  int bits = 4;
  int64_t group_size = 128;
  bool symmetric = false;
  // Also tries lo and hi shrunk by p = 1 - i / 100, i < 80, and keeps the grid with the smallest sum of |w - w^|^2.4
  // over the group; the first of equals.
  bool search = false;
  Dtype scale_dtype = Dtype::kF16;  // f16, bf16 or f32
};

struct UniformGrid {
  float scale = 1.0f;
  float zero = 0.0f;
};

// What w becomes on a grid.
static inline double nearest_value(double w, const UniformGrid& grid, double largest) {
  return grid_value(grid_code(w, grid.scale, grid.zero, largest), grid.scale, grid.zero);
}

// The grid of a group whose values, zero included, lie in [lo, hi].
UniformGrid grid_of(const GridOptions& options, double lo, double hi);

// The grid of a group of `count` values, searched where the options say so.
UniformGrid fit_group(const GridOptions& options, const float* w, int64_t count);

// The least and the greatest of `count` values and zero.
void range_of(const float* w, int64_t count, double* lo, double* hi);

// Columns of a group of a row of k, at most all of them.
int64_t group_length(int64_t group_size, int64_t k);

// Widths, group sizes and storage types that grids can have.
Status check_grid(const GridOptions& options);

// What every fit of grids asks of its operands.
Status check_grid_fit(Context& context, const GridOptions& options, const TensorView& w, const TensorView& scales,
                      const TensorView& zeros);

// kOption, with their number in `found`, where scales are infinite: they exceed the largest number of their storage
// type.
Status check_scales(const TensorView& scales);

// w f32 [m,k]; scales and zeros f32 [m, groups] out. kOption, with the number of such groups in `found`, where a
// scale exceeds the largest number of its storage type; w is kNonFinite where it is NaN or infinite. *subnormal, where
// not null, receives the number of groups whose scale lies below the storage type's smallest normal number and was
// therefore rounded up coarsely.
Status fit_grid(Context& context, const GridOptions& options, const TensorView& w, const TensorView& scales,
                const TensorView& zeros, int64_t* subnormal);

}  // namespace lutra
