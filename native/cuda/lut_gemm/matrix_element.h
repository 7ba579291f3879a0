// What the matrix unit multiplies: f16 or bf16, and how the bits of a code become one of their numbers without
// arithmetic.
//
// A code's field is shifted to the place of the top mantissa bits and joined with the exponent of 1: the number is
// 1 + code / 2^bits, exactly. What the 1 adds to a sum of products is the sum of x, which is subtracted in fp32.
// Planes are taken one by one out of one shifted field that begins a bit above the lowest bit of the exponent, joined
// with what makes the bit change the number between two simple ones (plane_zero, and plane_zero + plane_step where it
// is set).
#pragma once

#include "cuda/simt/simt.h"

namespace lutra::cuda {

// kExponentBit: the lowest bit of the exponent.
struct HalfElement {
  static constexpr int kExponentBit = 10;
  static constexpr uint32_t kOne = 0x3c00;
  LUTRA_DEVICE static void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) { mma_f16(c, a, b); }
};
struct BFloat16Element {
  static constexpr int kExponentBit = 7;
  static constexpr uint32_t kOne = 0x3f80;
  LUTRA_DEVICE static void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_bf16(c, a, b);
  }
};

constexpr uint32_t both_halves(uint32_t half) { return half << 16 | half; }

// Where the field's lowest bit must lie.
template <typename Element, int kBits, bool kPlanes>
constexpr int field_target() {
  return kPlanes ? Element::kExponentBit + 2 - kBits : Element::kExponentBit - kBits;
}

// By distance from the field's top: bit above the exponent's lowest, 1/4 or 1; that bit, 1/2 or 1; mantissa, 1 or 1
// 1/2; 1 or 1 1/4.
constexpr float plane_zero(int from_top) { return from_top == 0 ? 0.25f : from_top == 1 ? 0.5f : 1.0f; }
constexpr float plane_step(int from_top) { return from_top == 0 ? 0.75f : from_top == 3 ? 0.25f : 0.5f; }
template <typename Element>
constexpr uint32_t plane_magic(int from_top) {
  const uint32_t exponents_below_one = from_top == 0 ? 2 : from_top == 1 ? 1 : 0;
  return Element::kOne - (exponents_below_one << Element::kExponentBit);
}

LUTRA_DEVICE uint32_t moved(uint32_t word, int down) { return down >= 0 ? word >> down : word << -down; }

// Pair q of a lane's words (fragments.h), its field's lowest bit at `target` of both halves; other bits are anything.
template <int kBits>
LUTRA_DEVICE uint32_t pair_field(const uint32_t (&words)[2 * kBits], int q, int target) {
  const int within = q % 16;
  if (kBits != 3) return moved(words[q * kBits / 16], q * kBits % 16 - target);
  const int first = q / 16 * 3;
  if (within < 15) return moved(words[first + within / 5], within % 5 * 3 - target);
  uint32_t field = 0;
  LUTRA_UNROLL
  for (int j = 0; j < 3; ++j) field |= moved(words[first + j], 15 - target - j) & both_halves(1u << (target + j));
  return field;
}

}  // namespace lutra::cuda
