// Fills integer panels and lays out activations for them.
#include "kernels/lut_gemm/lut_gemm_avx512.h"
#include "kernels/lut_gemm/lut_gemm_avx512vbmi_planes.h"
#include "kernels/lut_gemm/lut_gemm_integer_panel.h"

namespace lutra {

namespace {

// The columns of two chunks in the order of the panel's bytes.
LUTRA_INLINE __m512i panel_order() {
  alignas(64) uint8_t index[64];
  for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(i / 32 * 32 + i % 4 * 8 + i % 32 / 4);
  return _mm512_load_si512(index);
}

// The low bytes of 64 columns, in the order of the panel.
LUTRA_INLINE void store_digits(const __m512i* values, __m512i order, uint8_t* out) {
  alignas(64) uint8_t bytes[64];
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i)
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes + 16 * i), _mm512_cvtepi32_epi8(values[i]));
  _mm512_store_si512(out, _mm512_permutexvar_epi8(order, _mm512_load_si512(bytes)));
}

// One block of one token: its digits, zeros past `count`, its step and the integer sums of its chunks.
template <int D>
void prepare_block(const float* x, int64_t count, uint8_t* digits, float* step, int32_t* sums) {
  constexpr int kRegisters = kIntegerBlock / 16;
  const __m512i order = panel_order();
  __m512 value[kRegisters];
  // The largest bits of a magnitude: a NaN is larger than any number and makes the step NaN.
  __m512i largest = _mm512_setzero_si512();
  LUTRA_UNROLL
  for (int i = 0; i < kRegisters; ++i) {
    const int64_t left = count - 16 * i;
    const __mmask16 mask = left >= 16 ? 0xffff : left > 0 ? static_cast<__mmask16>((1u << left) - 1) : 0;
    value[i] = _mm512_maskz_loadu_ps(mask, x + 16 * i);
    largest = _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(value[i])));
  }
  const float most = __builtin_bit_cast(float, _mm512_reduce_max_epi32(largest));
  constexpr float kLimit = D == 1 ? 127.0f : 32639.0f;
  *step = most < kLutSmallest ? 0.0f : most / kLimit;
  const __m512 inverse = _mm512_set1_ps(most < kLutSmallest ? 0.0f : kLimit / most);
  __m512i rounded[kRegisters];
  LUTRA_UNROLL
  for (int i = 0; i < kRegisters; ++i) rounded[i] = _mm512_cvtps_epi32(_mm512_mul_ps(value[i], inverse));
  LUTRA_UNROLL
  for (int c = 0; c < kRegisters / 2; ++c)
    sums[c] = _mm512_reduce_add_epi32(_mm512_add_epi32(rounded[2 * c], rounded[2 * c + 1]));
  if (D == 2) {
    __m512i high[kRegisters];
    LUTRA_UNROLL
    for (int i = 0; i < kRegisters; ++i)
      high[i] = _mm512_srai_epi32(_mm512_add_epi32(rounded[i], _mm512_set1_epi32(128)), 8);
    store_digits(high, order, digits);
    store_digits(high + 4, order, digits + 64);
    digits += kIntegerCols;
  }
  // The low byte of a value is its low digit.
  store_digits(rounded, order, digits);
  store_digits(rounded + 4, order, digits + 64);
}

template <int D>
LUTRA_INLINE void prepare(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                          int64_t group_size, uint8_t* prepared) {
  for (int64_t t = 0; t < tokens; ++t) {
    uint8_t* token = prepared + t * integer_token_bytes(D);
    float* steps = reinterpret_cast<float*>(token + D * kIntegerCols);
    int32_t chunk_sums[kIntegerChunks];
    for (int64_t k = first; k < last; k += kIntegerBlock) {
      const int64_t block = (k - first) / kIntegerBlock;
      prepare_block<D>(x + t * x_stride + k, last - k, token + block * kIntegerBlock, steps + block,
                       chunk_sums + block * (kIntegerBlock / kLutChunk));
    }
    for (int64_t k = first; k < last;) {
      const int64_t end = integer_span_end(k, lut_group_end(k, last, group_size));
      const int64_t chunk = (k - first) / kLutChunk;
      uint32_t sum = 0;  // unsigned: of infinities it may wrap, and the step says so
      for (int64_t c = chunk; c * kLutChunk < end - first; ++c) sum += static_cast<uint32_t>(chunk_sums[c]);
      steps[kIntegerSums + chunk] = static_cast<float>(static_cast<int32_t>(sum)) * steps[(k - first) / kIntegerBlock];
      k = end;
    }
  }
}

// mask ? a : b, bit by bit.
LUTRA_INLINE __m512i select(uint32_t mask, __m512i a, __m512i b) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(static_cast<int>(mask)), a, b, 0xca);
}

// Columns 2i, and columns 2i + 1, of two planes as fields of two bits from bit 2i on.
LUTRA_INLINE __m512i even_pairs(__m512i low, __m512i high) {
  return select(0x55555555u, low, _mm512_slli_epi32(high, 1));
}
LUTRA_INLINE __m512i odd_pairs(__m512i low, __m512i high) {
  return select(0x55555555u, _mm512_srli_epi32(low, 1), high);
}

// What becomes of a code, a field of B bits in every byte from bit `Shift` on: itself.
template <int B>
struct Codes {
  template <int Shift>
  inline __attribute__((always_inline)) __m512i operator()(__m512i fields) const {
    return _mm512_and_si512(_mm512_srli_epi32(fields, Shift), _mm512_set1_epi8((1 << B) - 1));
  }
};

// Fields of B bits, one a nibble: columns p and p + 4 of each byte's eight.
template <class Map>
LUTRA_INLINE void store_nibbles(const Map& map, __m512i nibbles, int p, uint8_t* out) {
  _mm512_store_si512(out + p * 256, map.template operator()<0>(nibbles));
  _mm512_store_si512(out + (p + 4) * 256, map.template operator()<4>(nibbles));
}

// The codes of 16 rows of a chunk; `out` is the first of their bytes.
template <int B, class Map>
LUTRA_INLINE void expand_chunk(const Map& map, const uint32_t* codes, int64_t stride, uint8_t* out) {
  const __m512i plane0 = _mm512_loadu_si512(codes);
  const __m512i plane1 = _mm512_loadu_si512(codes + stride);
  const __m512i even = even_pairs(plane0, plane1);
  const __m512i odd = odd_pairs(plane0, plane1);
  if (B == 2) {
    store_nibbles(map, even, 0, out);
    store_nibbles(map, odd, 1, out);
    _mm512_store_si512(out + 2 * 256, map.template operator()<2>(even));
    _mm512_store_si512(out + 3 * 256, map.template operator()<2>(odd));
    _mm512_store_si512(out + 6 * 256, map.template operator()<6>(even));
    _mm512_store_si512(out + 7 * 256, map.template operator()<6>(odd));
    return;
  }
  const __m512i plane2 = _mm512_loadu_si512(codes + 2 * stride);
  if (B == 3) {
    // Bit 2 of a nibble is plane 2's; bit 3 is left over from the pairs.
    constexpr uint32_t kThird = 0x44444444u;
    store_nibbles(map, select(kThird, _mm512_slli_epi32(plane2, 2), even), 0, out);
    store_nibbles(map, select(kThird, _mm512_slli_epi32(plane2, 1), odd), 1, out);
    store_nibbles(map, select(kThird, plane2, _mm512_srli_epi32(even, 2)), 2, out);
    store_nibbles(map, select(kThird, _mm512_srli_epi32(plane2, 1), _mm512_srli_epi32(odd, 2)), 3, out);
    return;
  }
  const __m512i plane3 = _mm512_loadu_si512(codes + 3 * stride);
  const __m512i even_high = even_pairs(plane2, plane3);
  const __m512i odd_high = odd_pairs(plane2, plane3);
  constexpr uint32_t kLow = 0x33333333u;
  store_nibbles(map, select(kLow, even, _mm512_slli_epi32(even_high, 2)), 0, out);
  store_nibbles(map, select(kLow, odd, _mm512_slli_epi32(odd_high, 2)), 1, out);
  store_nibbles(map, select(kLow, _mm512_srli_epi32(even, 2), even_high), 2, out);
  store_nibbles(map, select(kLow, _mm512_srli_epi32(odd, 2), odd_high), 3, out);
}

template <int B>
void expand_codes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  for (int64_t k = first; k < last; k += kLutChunk) {
    const uint32_t* codes = tile.codes + k / kLutChunk * B * tile.stored_rows;
    uint8_t* out = panel + (k - first) / kLutChunk * kIntegerChunkBytes;
    for (int64_t row = 0; row < tile.stored_rows; row += 16)
      expand_chunk<B>(Codes<B>{}, codes + row, tile.stored_rows, out + row * 4);
  }
}

template <int B>
void expand_planes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  float* folds = reinterpret_cast<float*>(panel + kIntegerFoldAt);
  for (int64_t k = first; k < last; folds += kIntegerFoldFloats) {
    const int64_t end = lut_group_end(k, last, tile.group_size);
    for (int64_t row = 0; row < tile.stored_rows; row += 16) {
      const PlaneValues<B> values = plane_values<B>(tile, k / tile.group_size, row, folds + row);
      for (int64_t at = k; at < end; at += kLutChunk)
        expand_chunk<B>(values, tile.codes + at / kLutChunk * B * tile.stored_rows + row, tile.stored_rows,
                        panel + (at - first) / kLutChunk * kIntegerChunkBytes + row * 4);
    }
    k = end;
  }
}

// Scale and offset of 16 rows.
LUTRA_INLINE void expand_fold(const LutTile& tile, int64_t group, int64_t row, float* out) {
  const int64_t at = group * tile.stored_rows + row;
  const __m512 scale = lut_load(tile.scales, at, tile.scale_type);
  __m512 zero = _mm512_set1_ps(static_cast<float>(1 << (tile.bits - 1)));
  if (tile.offset == LutOffset::kZeroCode) zero = lut_load_codes(tile.offsets, at);
  __m512 offset = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(scale, zero));
  if (tile.offset == LutOffset::kReal) offset = lut_load(tile.offsets, at, tile.offset_type);
  _mm512_store_ps(out, scale);
  _mm512_store_ps(out + kLutTileRows, offset);
}

}  // namespace

void lut_gemm_avx512vbmi_expand(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  if (tile.bits == 2) expand_codes<2>(tile, first, last, panel);
  if (tile.bits == 3) expand_codes<3>(tile, first, last, panel);
  if (tile.bits == 4) expand_codes<4>(tile, first, last, panel);
  float* folds = reinterpret_cast<float*>(panel + kIntegerFoldAt);
  for (int64_t group = first / tile.group_size; group * tile.group_size < last; ++group, folds += kIntegerFoldFloats)
    for (int64_t row = 0; row < tile.stored_rows; row += 16) expand_fold(tile, group, row, folds + row);
}

void lut_gemm_avx512vbmi_expand_planes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  if (tile.bits == 2) expand_planes<2>(tile, first, last, panel);
  if (tile.bits == 3) expand_planes<3>(tile, first, last, panel);
  if (tile.bits == 4) expand_planes<4>(tile, first, last, panel);
}

void lut_gemm_avx512vbmi_prepare_fast(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                      int64_t group_size, uint8_t* prepared) {
  prepare<1>(x, x_stride, tokens, first, last, group_size, prepared);
}

void lut_gemm_avx512vbmi_prepare_accurate(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                          int64_t group_size, uint8_t* prepared) {
  prepare<2>(x, x_stride, tokens, first, last, group_size, prepared);
}

}  // namespace lutra
