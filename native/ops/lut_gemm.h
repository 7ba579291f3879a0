// Products with packed low-bit weights, and the way in and out of the packed layout.
#pragma once

#include <span>

#include "core/tensor_view.h"
#include "ops/context.h"
#include "packing/layout.h"

namespace lutra {

// Bounds on the normalised mean squared error against fp64: 1e-12, 1e-7, 2e-4.
enum class Mode : uint8_t { kExact, kAccurate, kFast };

struct LutOptions {
  Mode mode = Mode::kAccurate;
  // The same bits for a token alone or among any number of others: every token has its own tables.
  bool batch_invariant = false;

  LutOptions(Mode m, bool invariant = false) : mode(m), batch_invariant(invariant) {}
};

// y[i][n,m] = x[n,k] * weights[i]^T. x and y are f32; results overlap neither x nor each other. Weights of one call are
// alike in columns, bits, group size and kind: what they read of x is laid out once. A result's bits do not depend on
// the other weights.
Status lut_gemm(Context& context, std::span<const PackedView> weights, const TensorView& x,
                std::span<const TensorView> y, LutOptions options);
inline Status lut_gemm(Context& context, const PackedView& weights, const TensorView& x, const TensorView& y,
                       LutOptions options) {
  return lut_gemm(context, {&weights, 1}, x, {&y, 1}, options);
}

// bound[n,m] >= |y - exact y| for this mode, this input and the instruction set in use: the sum over groups and
// planes of |alpha| * (lookups) * (half a table step), plus fp32 accumulation's share.
Status lut_gemm_error_bound(Context& context, const PackedView& weights, const TensorView& x, const TensorView& bound,
                            LutOptions options);

// codes u8 [rows, cols] (0 .. 2^bits - 1) to the tile's words, u8 [4 * layout.codes_words()], and back.
Status pack_codes(Context& context, const PackedLayout& layout, const TensorView& codes, const TensorView& words);
Status unpack_codes(Context& context, const PackedLayout& layout, const TensorView& words, const TensorView& codes);

// Per-group values in logical order [rows, groups] or [rows, groups, planes] to tile order, and back.
// The element type is the tensor's own (f16, bf16, f32 or u8) and is not converted.
Status pack_group_values(Context& context, const PackedLayout& layout, int planes, const TensorView& logical,
                         const TensorView& tiled);
Status unpack_group_values(Context& context, const PackedLayout& layout, int planes, const TensorView& tiled,
                           const TensorView& logical);

// w[rows, cols] f32: every weight as the formula of packing/layout.h gives it, its share of the sub-branch included,
// computed in fp64 and rounded once.
Status dequantize(Context& context, const PackedView& weights, const TensorView& w);

}  // namespace lutra
