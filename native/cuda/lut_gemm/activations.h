// x in shared memory: [column][k] as numbers of the matrix unit (decode.h), and its sums.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/fragments.h"
#include "cuda/lut_gemm/matrix_element.h"
#include "cuda/lut_gemm/stored.h"

namespace lutra::cuda {

// Eight consecutive numbers of a token from k on, zeros past the end. x is f16 or bf16 here, as the element.
LUTRA_DEVICE Words4 narrow_activations(const DecodeArguments& args, int token, int64_t k) {
  const uint16_t* const from = static_cast<const uint16_t*>(args.x) + token * args.cols + k;
  if (k + 8 <= args.cols && (reinterpret_cast<uintptr_t>(from) & 15) == 0) return load4(from);
  Words4 eight = {};
  LUTRA_UNROLL
  for (int i = 0; i < 8; ++i)
    if (k + i < args.cols) eight.w[i / 2] |= static_cast<uint32_t>(load(from + i)) << (i % 2 * 16);
  return eight;
}

// Writes the parts of units [first, first + count) of every token.
template <typename Element, int kColumnTiles>
LUTRA_DEVICE void stage_activations(const DecodeArguments& args, uint8_t* shared, int first, int count) {
  constexpr int kPitch = decode_pitch(kColumnTiles);
  const int eights = count * (kUnitCols / 8);
  for (int i = thread_index(); i < args.tokens * eights; i += kDecodeThreads) {
    const int token = i / eights;
    const int at = i % eights;
    const int64_t k = static_cast<int64_t>(first) * kUnitCols + at * 8;
    uint8_t* const to = shared + token * args.parts * kPitch + at * 16;
    if (args.x_dtype != kStoredF32) {
      *reinterpret_cast<Words4*>(to) = narrow_activations(args, token, k);
      continue;
    }
    const float* const from = static_cast<const float*>(args.x) + token * args.cols + k;
    float values[8];
    LUTRA_UNROLL
    for (int j = 0; j < 8; ++j) values[j] = k + j < args.cols ? load(from + j) : 0.0f;
    for (int part = 0; part < args.parts; ++part) {
      Words4 eight;
      LUTRA_UNROLL
      for (int j = 0; j < 4; ++j)
        eight.w[j] = bfloat16_part(values[2 * j], part, args.parts) | bfloat16_part(values[2 * j + 1], part, args.parts)
                                                                          << 16;
      *reinterpret_cast<Words4*>(to + part * kPitch) = eight;
    }
  }
}

// Sums of x over the steps that one fold takes together, written at the last of them: a product with ones on the matrix
// unit, which adds x in the way in which it adds the weights' products. first_unit: where the block's range begins.
template <typename Element, int kColumnTiles>
LUTRA_DEVICE void sum_activations(const DecodeArguments& args, uint8_t* shared, int first_unit, int chunk, int count,
                                  int end) {
  constexpr int kPitch = decode_pitch(kColumnTiles);
  constexpr int kWindow = kFoldUnits * kUnitSteps;
  float* const sums = reinterpret_cast<float*>(shared + decode_sums_at(kColumnTiles));
  const int lane = thread_index() % kWarp;
  const uint32_t ones[4] = {both_halves(Element::kOne), both_halves(Element::kOne), both_halves(Element::kOne),
                            both_halves(Element::kOne)};
  for (int s = thread_index() / kWarp; s < count * kUnitSteps; s += kDecodeWarps) {
    const int step = chunk * kUnitSteps + s;              // of the row
    const int of_range = step - first_unit * kUnitSteps;  // of the block's range
    const bool folds =
        (step + 1) % args.group_steps == 0 || (of_range + 1) % kWindow == 0 || step + 1 == end * kUnitSteps;
    if (!folds) continue;
    const int of_group = step % args.group_steps;
    const int of_window = of_range % kWindow;
    const int steps = of_group < of_window ? of_group : of_window;  // before this one
    LUTRA_UNROLL
    for (int n = 0; n < kColumnTiles; ++n) {
      const int column = 8 * n + lane / 4;
      const bool used = column < args.tokens * args.parts;
      float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int at = s - steps; at <= s; ++at) {
        Words2 x = {};
        if (used) x = *reinterpret_cast<const Words2*>(shared + column * kPitch + at * 32 + lane % 4 * 8);
        const uint32_t b[2] = {x.w[0], x.w[1]};
        Element::multiply(c, ones, b);
      }
      if (lane < 4) {
        sums[s * 8 * kColumnTiles + 8 * n + lane * 2] = c[0];
        sums[s * 8 * kColumnTiles + 8 * n + lane * 2 + 1] = c[1];
      }
    }
  }
}

}  // namespace lutra::cuda
