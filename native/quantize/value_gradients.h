// Finetuning a matrix's values with its codes frozen: the weights that they stand for, and the way a loss's derivative
// by those weights becomes one by the values. A weight is linear in the values of its group, with the code's bits as
// factors:
//   kZeroCode: ds = sum dw (code - zero), the zeros stay     kRealOffset: ds = sum dw code, dz = sum dw
//   kPlanes: dalpha_b = sum dw bit_b, dz = sum dw            kCentredPlanes: dalpha_b = sum dw (bit_b - 1/2)
// (decoupleQ, arXiv 2404.12759, has kRealOffset; the others follow by the chain rule.)
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/levels.h"

namespace lutra {

// w f32 [m,k]: the level of every code of codes u8 [m,k], added to what is there where `add` is set.
Status level_weights(Context& context, int64_t group_size, const TensorView& codes, const TensorView& levels, bool add,
                     const TensorView& w);

// Codes of `bits` bits. dscales f32, shaped as the scales [m, groups] or alphas [m, groups, bits], and doffsets f32 [m,
// groups], which is written for kRealOffset and kPlanes alone. dw f32 [m,k]; zeros f32 [m, groups], read for kZeroCode
// alone. Sums in fp64.
Status value_gradients(Context& context, LevelKind kind, int bits, int64_t group_size, const TensorView& dw,
                       const TensorView& codes, const TensorView& zeros, const TensorView& dscales,
                       const TensorView& doffsets);

}  // namespace lutra
