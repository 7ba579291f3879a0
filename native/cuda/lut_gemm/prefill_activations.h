// x in the order in which the matrix unit takes it, and its sums (prefill.h). One warp a unit and tile of 8 columns.
#pragma once

#include "cuda/lut_gemm/matrix_element.h"
#include "cuda/lut_gemm/prefill.h"
#include "cuda/lut_gemm/stored.h"

namespace lutra::cuda {

// Numbers k to k + 3 of part `part` of a token, zeros past the end.
LUTRA_DEVICE Words2 four_activations(const DecodeArguments& args, int token, int part, int64_t k) {
  const int64_t at = token * args.cols + k;
  if (args.x_dtype != kStoredF32) {
    const uint16_t* const from = static_cast<const uint16_t*>(args.x) + at;
    if (k + 4 <= args.cols && (reinterpret_cast<uintptr_t>(from) & 7) == 0) return load2(from);
    Words2 four = {};
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i)
      if (k + i < args.cols) four.w[i / 2] |= static_cast<uint32_t>(load(from + i)) << (i % 2 * 16);
    return four;
  }
  Words2 four = {};
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float value = k + i < args.cols ? load(static_cast<const float*>(args.x) + at + i) : 0.0f;
    four.w[i / 2] |= bfloat16_part(value, part, args.parts) << (i % 2 * 16);
  }
  return four;
}

template <typename Element>
LUTRA_DEVICE void lay_out_activations(const PrefillArguments& args) {
  const DecodeArguments& product = args.product;
  const int lane = thread_index() % kWarp;
  const int64_t tiles = prefill_column_tiles_of(args);
  const int64_t place = static_cast<int64_t>(block_index()) * kPrefillWarps + thread_index() / kWarp;
  if (place >= tiles * product.units) return;
  const int unit = static_cast<int>(place / tiles);
  const int column = static_cast<int>(place % tiles) * 8 + lane / 4;
  const int of_block = column % args.block_columns;
  const int token = column / args.block_columns * args.block_tokens + of_block / product.parts;
  const bool used = of_block < args.block_tokens * product.parts && token < product.tokens;
  uint32_t* const words = args.x_fragments + place * kUnitTileWords;
  float* const x_sums = reinterpret_cast<float*>(words + kOperandWords);
  const uint32_t ones[4] = {both_halves(Element::kOne), both_halves(Element::kOne), both_halves(Element::kOne),
                            both_halves(Element::kOne)};
  // A product with ones adds x in the way in which the matrix unit adds the weights' products.
  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int step = 0; step < kUnitSteps; ++step) {
    const int64_t k = static_cast<int64_t>(unit) * kUnitCols + step * kStepCols + lane % 4 * 4;
    Words2 x = {};
    if (used) x = four_activations(product, token, of_block % product.parts, k);
    *reinterpret_cast<Words2*>(words + step / 2 * 4 * kWarp + lane * 4 + step % 2 * 2) = x;
    const uint32_t b[2] = {x.w[0], x.w[1]};
    Element::multiply(c, ones, b);
    const bool folds = (static_cast<int64_t>(unit) * kUnitSteps + step + 1) % product.group_steps == 0;
    if (!folds && step + 1 < kUnitSteps) continue;
    if (lane < 4) {
      x_sums[step * 8 + lane * 2] = c[0];
      x_sums[step * 8 + lane * 2 + 1] = c[1];
    }
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) c[i] = 0.0f;
  }
}

}  // namespace lutra::cuda
