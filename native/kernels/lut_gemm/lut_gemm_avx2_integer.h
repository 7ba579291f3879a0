// Integer products on ymm registers, shared by the AVX2 and the AVX-VNNI files: activations rounded to signed bytes,
// and the codes of a chunk as unsigned bytes that meet them.
//
// Fast mode has one digit of x / step, in -127..127; accurate mode two, 256 * high + low in -32639..32639.
//
// Codes are one of two classes: step(p) has in byte j of a row's dword the code of column 8 j + p. A policy supplies
//   Dot::Sums<Digits, Codes>   zeros at first
//     .add_chunk(codes, entries)   adds 8 rows of a chunk
//     .digit(d)                    what was added, of digit d
#pragma once

#include "kernels/lut_gemm/lut_gemm_avx2.h"

namespace lutra {

template <int Digits>
constexpr float kLutDigitLimit = Digits == 1 ? 127.0f : 32639.0f;  // 256 * 127 + 127: reached on both sides

LUTRA_INLINE __m256i lut_ands(__m256i a, int mask) { return _mm256_and_si256(a, _mm256_set1_epi32(mask)); }

// --- Codes. ---

// Exchanges the bits of `low` that lie under mask << shift with those of `high` under mask.
LUTRA_INLINE void lut_exchange(__m256i& low, __m256i& high, int shift, int mask) {
  const __m256i differ = lut_ands(_mm256_xor_si256(_mm256_srli_epi32(low, shift), high), mask);
  high = _mm256_xor_si256(high, differ);
  low = _mm256_xor_si256(low, _mm256_slli_epi32(differ, shift));
}

// From the words of the planes. Planes 0 and 1 exchange odd bits for even ones: one register then holds the even
// columns as fields of 2 bits, the other the odd ones. With two more planes these exchange pairs: nibbles of every
// fourth column.
template <int B>
struct LutFields {
  static_assert(B >= 2 && B <= 4);
  static constexpr int kFields = B == 2 ? 4 : 2;  // in a byte
  static constexpr int kBits = 8 / kFields;
  __m256i pair[2];
  __m256i nibble[4];

  inline __attribute__((always_inline)) explicit LutFields(const __m256i* words) {
    pair[0] = words[0];
    pair[1] = words[1];
    lut_exchange(pair[0], pair[1], 1, 0x55555555);
    if (B == 2) return;
    __m256i upper[2] = {words[2], words[B - 1]};
    if (B == 4) {
      lut_exchange(upper[0], upper[1], 1, 0x55555555);
    } else {
      upper[0] = lut_ands(words[2], 0x55555555);
      upper[1] = lut_ands(_mm256_srli_epi32(words[2], 1), 0x55555555);
    }
    LUTRA_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      nibble[odd] = pair[odd];
      nibble[odd + 2] = upper[odd];
      lut_exchange(nibble[odd], nibble[odd + 2], 2, 0x33333333);
    }
  }
  // Codes of columns 8 j + p.
  inline __attribute__((always_inline)) __m256i step(int p) const {
    if (B == 2) return lut_ands(_mm256_srli_epi32(pair[p & 1], p & 6), 0x03030303);
    return lut_ands(_mm256_srli_epi32(nibble[p & 3], p & 4), 0x0f0f0f0f);
  }
  // The same where they lie: times 1 << (kBits * field(p)).
  static inline constexpr __attribute__((always_inline)) int field(int p) { return B == 2 ? p >> 1 : p >> 2; }
  inline __attribute__((always_inline)) __m256i in_place(int p) const {
    if (B == 2) return lut_ands(pair[p & 1], static_cast<int>(0x03030303u << (p & 6)));
    return lut_ands(nibble[p & 3], static_cast<int>(0x0f0f0f0fu << (p & 4)));
  }
};

// The bits of a single plane.
struct LutPlaneBits {
  static constexpr int kFields = 4;
  static constexpr int kBits = 1;
  __m256i words;
  __m256i upper;  // so that columns p and p + 4 lie in the same four bits
  inline __attribute__((always_inline)) explicit LutPlaneBits(const __m256i* word)
      : words(*word), upper(_mm256_srli_epi32(*word, 4)) {}
  inline __attribute__((always_inline)) __m256i step(int p) const {
    return lut_ands(_mm256_srli_epi32(words, p), 0x01010101);
  }
  static inline constexpr __attribute__((always_inline)) int field(int p) { return p & 3; }
  inline __attribute__((always_inline)) __m256i in_place(int p) const {
    return lut_ands(p < 4 ? words : upper, static_cast<int>(0x01010101u << (p & 3)));
  }
};

template <int B, bool P>
struct LutCodes {
  using Type = LutFields<B>;
};
template <int B>
struct LutCodes<B, true> {
  using Type = LutPlaneBits;
};

// --- Activations. ---

// A NaN or an infinity in the block makes the step NaN, and with it every y.
struct LutStep {
  float step;
  float inverse;
};
LUTRA_INLINE LutStep lut_step(const float* x, float limit) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest = _mm256_setzero_ps();
  __m256 poison = _mm256_setzero_ps();
  for (int i = 0; i < kLutBlock; i += 8) {
    const __m256 value = _mm256_loadu_ps(x + i);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, value));
    poison = _mm256_fmadd_ps(value, _mm256_setzero_ps(), poison);
  }
  const float most = lut_max(largest);
  const float zero = lut_sum(poison);
  if (!(most >= kLutSmallest) || zero != 0.0f) return {zero, 0.0f};
  return {most / limit, limit / most};
}

// bytes: 32 signed digits in column order; to dwords of columns p, p + 8, p + 16, p + 24.
LUTRA_INLINE void lut_store_digits(__m256i bytes, uint8_t* out) {
  const __m128i low = _mm256_castsi256_si128(bytes);                          // columns 0..15
  const __m128i high = _mm256_extracti128_si256(bytes, 1);                    // columns 16..31
  const __m128i a = _mm_unpacklo_epi8(low, _mm_unpackhi_epi64(low, low));     // p, p + 8
  const __m128i b = _mm_unpacklo_epi8(high, _mm_unpackhi_epi64(high, high));  // p + 16, p + 24
  _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi16(a, b));
  _mm_store_si128(reinterpret_cast<__m128i*>(out + 16), _mm_unpackhi_epi16(a, b));
}

// Four registers of 8 int32 within a byte's range, in column order, to 32 bytes in column order.
LUTRA_INLINE __m256i lut_narrow(const __m256i* values) {
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(values[0], values[1]), _mm256_packs_epi32(values[2], values[3]));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Rounds a block of 64 columns: chunk c's digit d to out + c * chunk_bytes + d * digit_bytes, digit 0 the low one; the
// sums of its runs of 16 columns, after rounding, to sums16. Returns its step.
template <int Digits>
LUTRA_INLINE float lut_round_block(const float* x, uint8_t* out, int64_t chunk_bytes, int64_t digit_bytes,
                                   float* sums16) {
  const LutStep scale = lut_step(x, kLutDigitLimit<Digits>);
  for (int chunk = 0; chunk < 2; ++chunk) {
    __m256i low[4];
    __m256i high[4];
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + chunk * 32 + i * 8), _mm256_set1_ps(scale.inverse));
      const __m256i value = _mm256_cvtps_epi32(scaled);
      sum[i / 2] = _mm256_add_ps(sum[i / 2], _mm256_cvtepi32_ps(value));  // integers under 2^24: exact
      high[i] = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(128)), 8);
      low[i] = Digits == 1 ? value : _mm256_sub_epi32(value, _mm256_slli_epi32(high[i], 8));
    }
    for (int i = 0; i < 2; ++i) sums16[2 * chunk + i] = lut_sum(sum[i]) * scale.step;
    lut_store_digits(lut_narrow(low), out + chunk * chunk_bytes);
    if (Digits == 2) lut_store_digits(lut_narrow(high), out + chunk * chunk_bytes + digit_bytes);
  }
  return scale.step;
}

// --- Products with tables' entries. ---

template <class Dot, int Digits>
struct LutInteger {
  static constexpr int64_t kChunkBytes = 32 * Digits;
  static constexpr bool kCentred = false;
  static constexpr int kPrefetch = 4096;  // bytes ahead in the code stream

  // Of one plane of several, or of all planes of uniform weights; `codes` are those of the span's first chunk.
  template <int Words, bool Half, class Sums, class Codes>
  static inline __attribute__((always_inline)) void add_chunks(const LutSpan& span, const uint32_t* codes,
                                                               int64_t chunk_words, Sums& total) {
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk) {
      __m256i words[Words];
      LUTRA_UNROLL
      for (int b = 0; b < Words; ++b) {
        const uint32_t* source = codes + chunk * chunk_words + b * span.stride;
        _mm_prefetch(reinterpret_cast<const char*>(source) + kPrefetch, _MM_HINT_T0);
        words[b] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
        if (Half) words[b] = lut_ands(words[b], static_cast<int>(span.bits));
      }
      total.add_chunk(Codes(words), span.entries + chunk * kChunkBytes);
    }
  }

  template <int B, bool P>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m256* sums) {
    using Codes = typename LutCodes<B, P>::Type;
    using Sums = typename Dot::template Sums<Digits, Codes>;
    constexpr int kWords = P ? 1 : B;
    LUTRA_UNROLL
    for (int s = 0; s < B / kWords; ++s) {
      Sums total;
      const uint32_t* codes = span.codes + s * span.stride;
      if (span.bits == 0xffffffffu)
        add_chunks<kWords, false, Sums, Codes>(span, codes, B * span.stride, total);
      else
        add_chunks<kWords, true, Sums, Codes>(span, codes, B * span.stride, total);
      __m256i sum = total.digit(0);
      if (Digits == 2) sum = _mm256_add_epi32(sum, _mm256_slli_epi32(total.digit(Digits - 1), 8));
      sums[s] = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(span.step));
    }
  }
};

}  // namespace lutra
