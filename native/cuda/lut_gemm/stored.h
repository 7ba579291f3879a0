// Stored numbers as fp32, on the device and on the host's machine. What is loaded stays bits until it is used, so that
// a load may be asked for long before.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

LUTRA_DEVICE uint32_t stored_bits(const void* values, int64_t i, int32_t dtype) {
  if (dtype == kStoredF32) return load(static_cast<const uint32_t*>(values) + i);
  if (dtype == kStoredU8 || dtype == kStoredI8) return load(static_cast<const uint8_t*>(values) + i);
  return load(static_cast<const uint16_t*>(values) + i);
}

LUTRA_DEVICE float stored_number(uint32_t bits, int32_t dtype) {
  if (dtype == kStoredF32) return float_of(bits);
  if (dtype == kStoredU8) return static_cast<float>(bits);
  if (dtype == kStoredI8) return static_cast<float>(static_cast<int8_t>(bits));
  return dtype == kStoredF16 ? float_of_half(bits) : float_of(bits << 16);
}

LUTRA_DEVICE float stored_float(const void* values, int64_t i, int32_t dtype) {
  return stored_number(stored_bits(values, i, dtype), dtype);
}

// Eight consecutive numbers; those past the first `left` are zero.
LUTRA_DEVICE void load_eight(const void* values, int64_t at, int64_t left, int32_t dtype, float (&eight)[8]) {
  const bool narrow = dtype == kStoredF16 || dtype == kStoredBF16;
  const void* const from = static_cast<const uint16_t*>(values) + at;
  if (narrow && left >= 8 && (reinterpret_cast<uintptr_t>(from) & 15) == 0) {
    const Words4 words = load4(from);
    LUTRA_UNROLL
    for (int i = 0; i < 8; ++i) eight[i] = stored_number(words.w[i / 2] >> (i % 2 * 16) & 0xffffu, dtype);
    return;
  }
  const float* const floats = static_cast<const float*>(values) + at;
  if (dtype == kStoredF32 && left >= 8 && (reinterpret_cast<uintptr_t>(floats) & 15) == 0) {
    const Words4 halves[2] = {load4(floats), load4(floats + 4)};
    LUTRA_UNROLL
    for (int i = 0; i < 8; ++i) eight[i] = float_of(halves[i / 4].w[i % 4]);
    return;
  }
  LUTRA_UNROLL
  for (int i = 0; i < 8; ++i) eight[i] = i < left ? stored_float(values, at + i, dtype) : 0.0f;
}

// Four consecutive numbers; those past the first `left` are zero.
LUTRA_DEVICE void load_four(const void* values, int64_t at, int64_t left, int32_t dtype, float (&four)[4]) {
  const bool narrow = dtype == kStoredF16 || dtype == kStoredBF16;
  const void* const from = static_cast<const uint16_t*>(values) + at;
  if (narrow && left >= 4 && (reinterpret_cast<uintptr_t>(from) & 7) == 0) {
    const Words2 words = load2(from);
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) four[i] = stored_number(words.w[i / 2] >> (i % 2 * 16) & 0xffffu, dtype);
    return;
  }
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) four[i] = i < left ? stored_float(values, at + i, dtype) : 0.0f;
}

// To nearest, ties to even; what is no number stays none.
LUTRA_DEVICE uint32_t bfloat16_of(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

LUTRA_DEVICE void store_float(void* values, int64_t i, int32_t dtype, float value) {
  if (dtype == kStoredF32) {
    static_cast<float*>(values)[i] = value;
  } else {
    const uint32_t half = dtype == kStoredF16 ? half_of(value) : bfloat16_of(value);
    static_cast<uint16_t*>(values)[i] = static_cast<uint16_t>(half);
  }
}

// The 16-bit number of `part` (of `parts`) of a value: all but the last are cut off, so that parts add up to the value
// as far as they reach, and none overflows.
LUTRA_DEVICE uint32_t bfloat16_part(float value, int part, int parts) {
  float rest = value;
  for (int p = 0; p < part; ++p) rest -= float_of(bits_of(rest) & 0xffff0000u);
  return part + 1 == parts ? bfloat16_of(rest) : bits_of(rest) >> 16;
}

}  // namespace lutra::cuda
