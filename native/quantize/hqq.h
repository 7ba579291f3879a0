// Half-quadratic quantization (Badri and Shaji, 2023): a uniform grid with a real offset, w ~ scale * code + offset.
// The scale is the group's range over the codes; the offset is chosen for a sparse error, sum |w - w^|^p with p < 1, by
// alternating a shrinkage of the error and a mean.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

struct HqqOptions {
  int bits = 0;
  int64_t group_size = 0;  // in columns, at least one
  int iterations = 0;      // at most; the first that does not lower the mean magnitude of the error is the last
  double norm = 0.7;       // p, in (0, 1]
  double beta = 10.0;      // weight of the split, in units of w^(p - 2)
  double kappa = 1.0;      // beta grows by this factor every iteration
  Dtype storage = Dtype::kF16;
};

// shrink(x) = sign(x) * max(0, |x| - |x|^(p - 1) / beta)
double hqq_shrink(double x, double norm, double beta);

// w f32 [m,k]; scales and offsets f32 [m, groups] out, numbers of the storage type before any error is taken: the mean
// magnitude of the error of what is stored is never above that of the offset at the group's least weight.
// kOption, with the number of such groups in `found`, where one needs numbers that the storage type does not have.
Status hqq_fit(Context& context, const HqqOptions& options, const TensorView& w, const TensorView& scales,
               const TensorView& offsets);

}  // namespace lutra
