// Fast and accurate modes: activations as signed bytes, one digit or two (x = 256 * high + low), times the codes.
//
// vpmaddubsw multiplies unsigned code bytes with signed activation bytes and adds neighbours to 16 bits. Byte j of the
// register of step p holds the codes of column 8 j + p of 8 rows, so a chunk is 8 steps, summed in 16 bits, then
// widened.
//
// No saturation: a step adds two products of a code (15 at most) and a digit (-128..127), a chunk eight steps:
// 8 * 2 * 15 * 128 = 30720 < 32768. 32 bits: two chunks, 2 * 2 * 30720 per lane and digit, times 256: < 2^25.
#include "kernels/lut_gemm/lut_gemm_avx2.h"

namespace lutra {

namespace {

constexpr float kFastLimit = 127.0f;
constexpr float kAccurateLimit = 32639.0f;  // 256 * 127 + 127: what two digits reach on both sides

LUTRA_INLINE __m256i ors(__m256i a, __m256i b) { return _mm256_or_si256(a, b); }
LUTRA_INLINE __m256i ands(__m256i a, int mask) { return _mm256_and_si256(a, _mm256_set1_epi32(mask)); }

// Code bytes of each step from the words of the planes. Even columns of planes 0 and 1 interleave to 2-bit fields in
// one register, odd ones in another; with two more planes these interleave again to nibbles of every fourth column.
template <int B>
struct Fields {
  static_assert(B >= 2 && B <= 4);
  __m256i pair[2];
  __m256i nibble[4];

  static inline __attribute__((always_inline)) void interleave(const __m256i* words, __m256i* even_odd) {
    even_odd[0] = ors(ands(words[0], 0x55555555), _mm256_slli_epi32(ands(words[1], 0x55555555), 1));
    even_odd[1] = ors(_mm256_srli_epi32(ands(words[0], static_cast<int>(0xaaaaaaaa)), 1),
                      ands(words[1], static_cast<int>(0xaaaaaaaa)));
  }
  inline __attribute__((always_inline)) explicit Fields(const __m256i* words) {
    interleave(words, pair);
    if (B == 2) return;
    __m256i upper[2];
    if (B == 4) {
      interleave(words + 2, upper);
    } else {
      upper[0] = ands(words[2], 0x55555555);
      upper[1] = ands(_mm256_srli_epi32(words[2], 1), 0x55555555);
    }
    LUTRA_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      nibble[odd] = ors(ands(pair[odd], 0x33333333), _mm256_slli_epi32(ands(upper[odd], 0x33333333), 2));
      nibble[odd + 2] =
          ors(ands(_mm256_srli_epi32(pair[odd], 2), 0x33333333), ands(upper[odd], static_cast<int>(0xcccccccc)));
    }
  }
  // Codes of columns 8 j + p.
  inline __attribute__((always_inline)) __m256i step(int p) const {
    if (B == 2) return ands(_mm256_srli_epi32(pair[p & 1], p & 6), 0x03030303);
    return ands(_mm256_srli_epi32(nibble[p & 3], p & 4), 0x0f0f0f0f);
  }
};

// The bits of a single plane.
struct PlaneBits {
  __m256i words;
  inline __attribute__((always_inline)) __m256i step(int p) const {
    return ands(_mm256_srli_epi32(words, p), 0x01010101);
  }
};

template <int Digits>
struct Integer {
  static constexpr int64_t kChunkBytes = 32 * Digits;
  static constexpr bool kCentred = false;

  // sums[digit] += one chunk.
  template <class Codes>
  static inline __attribute__((always_inline)) void add_chunk(const Codes& codes, const uint8_t* entries,
                                                              __m256i* sums) {
    __m256i words[Digits];
    LUTRA_UNROLL
    for (int p = 0; p < 8; ++p) {
      const __m256i code = codes.step(p);
      LUTRA_UNROLL
      for (int d = 0; d < Digits; ++d) {
        int32_t digits;
        __builtin_memcpy(&digits, entries + 32 * d + 4 * p, 4);
        const __m256i product = _mm256_maddubs_epi16(code, _mm256_set1_epi32(digits));
        words[d] = p == 0 ? product : _mm256_add_epi16(words[d], product);
      }
    }
    LUTRA_UNROLL
    for (int d = 0; d < Digits; ++d)
      sums[d] = _mm256_add_epi32(sums[d], _mm256_madd_epi16(words[d], _mm256_set1_epi16(1)));
  }

  template <int B, bool P>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m256* sums) {
    constexpr int kSums = P ? B : 1;
    __m256i total[kSums][Digits];
    LUTRA_UNROLL
    for (int b = 0; b < kSums; ++b) {
      LUTRA_UNROLL
      for (int d = 0; d < Digits; ++d) total[b][d] = _mm256_setzero_si256();
    }
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk) {
      const uint32_t* codes = span.codes + chunk * B * span.stride;
      const uint8_t* entries = span.entries + chunk * kChunkBytes;
      __m256i words[B];
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b)
        words[b] = ands(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + b * span.stride)),
                        static_cast<int>(span.bits));
      if (P) {
        LUTRA_UNROLL
        for (int b = 0; b < B; ++b) add_chunk(PlaneBits{words[b]}, entries, total[b]);
      } else {
        add_chunk(Fields<B>(words), entries, total[0]);
      }
    }
    LUTRA_UNROLL
    for (int b = 0; b < kSums; ++b) {
      __m256i sum = total[b][0];
      if (Digits == 2) sum = _mm256_add_epi32(sum, _mm256_slli_epi32(total[b][Digits - 1], 8));
      sums[b] = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(span.step));
    }
  }
};

struct Step {
  float step;
  float inverse;
};

// A NaN or an infinity in the block makes the step NaN, and with it every y.
Step block_step(const float* x, float limit) {
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
LUTRA_INLINE void store_digits(__m256i bytes, uint8_t* out) {
  const __m128i low = _mm256_castsi256_si128(bytes);                          // columns 0..15
  const __m128i high = _mm256_extracti128_si256(bytes, 1);                    // columns 16..31
  const __m128i a = _mm_unpacklo_epi8(low, _mm_unpackhi_epi64(low, low));     // p, p + 8
  const __m128i b = _mm_unpacklo_epi8(high, _mm_unpackhi_epi64(high, high));  // p + 16, p + 24
  _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi16(a, b));
  _mm_store_si128(reinterpret_cast<__m128i*>(out + 16), _mm_unpackhi_epi16(a, b));
}

// Four registers of 8 int32 within a byte's range, in column order, to 32 bytes in column order.
LUTRA_INLINE __m256i narrow(const __m256i* values) {
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(values[0], values[1]), _mm256_packs_epi32(values[2], values[3]));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

template <int Digits>
void build(const float* x, int64_t cols, int64_t group_size, int64_t block, const LutTables& tables) {
  float padded[kLutBlock];
  const float* source = lut_block(x, cols, block, padded);
  const Step scale = block_step(source, Digits == 1 ? kFastLimit : kAccurateLimit);
  tables.steps[block] = scale.step;
  uint8_t* entries = tables.entries + block * 2 * Integer<Digits>::kChunkBytes;
  float sums16[4];
  for (int chunk = 0; chunk < 2; ++chunk) {
    __m256i low[4];
    __m256i high[4];
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(source + chunk * 32 + i * 8), _mm256_set1_ps(scale.inverse));
      const __m256i value = _mm256_cvtps_epi32(scaled);
      sum[i / 2] = _mm256_add_ps(sum[i / 2], _mm256_cvtepi32_ps(value));  // integers under 2^24: exact
      high[i] = _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(128)), 8);
      low[i] = Digits == 1 ? value : _mm256_sub_epi32(value, _mm256_slli_epi32(high[i], 8));
    }
    for (int i = 0; i < 2; ++i) sums16[2 * chunk + i] = lut_sum(sum[i]) * scale.step;
    store_digits(narrow(low), entries + chunk * Integer<Digits>::kChunkBytes);
    if (Digits == 2) store_digits(narrow(high), entries + chunk * Integer<Digits>::kChunkBytes + 32);
  }
  lut_store_sums(sums16, block, cols, group_size, tables.sums);
}

}  // namespace

void lut_gemm_avx2_build_fast(const float* x, int64_t cols, int64_t group_size, int64_t block,
                              const LutTables& tables) {
  build<1>(x, cols, group_size, block, tables);
}

void lut_gemm_avx2_build_accurate(const float* x, int64_t cols, int64_t group_size, int64_t block,
                                  const LutTables& tables) {
  build<2>(x, cols, group_size, block, tables);
}

void lut_gemm_avx2_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Integer<1>>(tile, tables, y, accumulate);
}

void lut_gemm_avx2_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Integer<2>>(tile, tables, y, accumulate);
}

}  // namespace lutra
