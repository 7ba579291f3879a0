// Binary-coding quantization (Xu et al., arXiv 1802.00150; the format of LUT-GEMM, arXiv 2206.09557): within a group,
//     w ~ offset + sum_b alpha_b * bit_b,    bit_b in {0, 1},    alpha_b >= 0,
// the +-1 codes of the papers with alpha_b = 2 a_b. Centred planes have no offset of their own: it is -sum_b alpha_b
// / 2.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

enum class BcqStart : uint8_t {
  kGreedy,  // plane after plane: the signs of what is left, and their mean magnitude
  kGrid,    // the uniform grid from the group's least to its greatest weight (centred: of its largest magnitude)
  kBest,    // both, and the one that ends with the smaller error; greedy of equals
};

struct BcqOptions {
  int bits = 0;
  int64_t group_size = 0;  // in columns, at least one
  bool centred = false;
  int rounds = 0;  // of least squares and nearest codes, at most; a round that gains nothing is the last
  BcqStart start = BcqStart::kBest;
  Dtype storage = Dtype::kF16;  // of alphas and offsets
};

// Fits every group of w f32 [m,k] for the least sum of importance * (w - w^)^2 with nearest codes; importance f64 [k],
// not negative. Alphas f32 [m, groups, bits], ascending, and offsets f32 [m, groups] (zero where centred) are numbers
// of the storage type before any error is taken: no further round makes the error of what is stored larger.
// kOption, with the number of such groups in `found`, where one needs numbers that the storage type does not have.
Status bcq_fit(Context& context, const BcqOptions& options, const TensorView& w, const TensorView& importance,
               const TensorView& alphas, const TensorView& offsets);

struct BcqRefit {
  int64_t group_size = 0;
  bool centred = false;
  double damping = 0.0;  // added to the Hessian's diagonal
  Dtype storage = Dtype::kF16;
};

// Least squares in the metric of the Hessian, codes given: group after group, the alphas and the offset of every row
// that make tr((W^ - W) H (W^ - W)^T) smallest with all other groups as they are, rounded to storage and taken where
// they lower it. hessian f64 [k,k]; codes u8 [m,k], alphas and offsets (zero where centred) in and out: a plane whose
// alpha turns negative has its bits flipped instead.
Status bcq_refit(Context& context, const BcqRefit& options, const TensorView& w, const TensorView& hessian,
                 const TensorView& codes, const TensorView& alphas, const TensorView& offsets);

}  // namespace lutra
