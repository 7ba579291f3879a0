// Many tokens in fast and accurate mode: codes unpacked to a panel of bytes, activations as signed bytes, vpdpbusd.
//
//   panel     u8 [chunk][8][64 rows][4]   dword p of a chunk: the codes of columns p, p + 8, p + 16, p + 24
//             f32 [group of the panel][2][64 rows]   the scale and the offset of a row's group
//   prepared  of a token: s8 [digit][chunk][8][4], then f32 [4] the steps of its blocks and f32 [8] the sums of its
//             chunks. Fast has one digit of x / step in -127..127; accurate two, 256 * high + low in -32639..32639.
//
// The sums are those of the rounded activations, so an error common to all columns cancels against the offset.
//
// Bounds: vpdpbusd adds four products of u8 and s8 to an int32 and wraps. A span has at most 64 columns and codes are
// at most 15: |sum of digits| <= 64 * 15 * 128 < 2^17, and with the high digits 64 * 15 * 32639 < 2^25.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

constexpr int64_t kCols = 256;
constexpr int64_t kChunks = kCols / kLutChunk;
constexpr int64_t kChunkBytes = kLutChunk * kLutTileRows;
constexpr int64_t kFoldFloats = 2 * kLutTileRows;
constexpr int64_t kPanelBytes = kChunks * (kChunkBytes + kFoldFloats * 4);  // a group has at least a chunk
constexpr int64_t kTailBytes = 64;

constexpr int64_t token_bytes(int digits) { return digits * kCols + kTailBytes; }

template <int D>
int64_t prepared_bytes(int64_t tokens) {
  return tokens * token_bytes(D);
}

// The columns of a block in the order of the panel's bytes.
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
  _mm512_storeu_si512(out, _mm512_permutexvar_epi8(order, _mm512_load_si512(bytes)));
}

// One block of one token: digits, step and the sums of its two chunks.
template <int D>
void prepare_block(const float* x, int64_t count, uint8_t* digits, float* step, float* sums) {
  const __m512i order = panel_order();
  __m512 value[4];
  // Largest bits of magnitudes: a NaN is larger than any number and makes the step NaN.
  __m512i largest = _mm512_setzero_si512();
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t left = count - 16 * i;
    const __mmask16 mask = left >= 16 ? 0xffff : left > 0 ? static_cast<__mmask16>((1u << left) - 1) : 0;
    value[i] = _mm512_maskz_loadu_ps(mask, x + 16 * i);
    largest = _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(value[i])));
  }
  const float most = __builtin_bit_cast(float, _mm512_reduce_max_epi32(largest));
  constexpr float kLimit = D == 1 ? 127.0f : 32639.0f;
  *step = most < kLutSmallest ? 0.0f : most / kLimit;
  const __m512 inverse = _mm512_set1_ps(most < kLutSmallest ? 0.0f : kLimit / most);
  __m512i rounded[4];
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) rounded[i] = _mm512_cvtps_epi32(_mm512_mul_ps(value[i], inverse));
  LUTRA_UNROLL
  for (int c = 0; c < 2; ++c)
    sums[c] = static_cast<float>(_mm512_reduce_add_epi32(_mm512_add_epi32(rounded[2 * c], rounded[2 * c + 1]))) * *step;
  if (D == 2) {
    __m512i high[4];
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) high[i] = _mm512_srai_epi32(_mm512_add_epi32(rounded[i], _mm512_set1_epi32(128)), 8);
    store_digits(high, order, digits);
    digits += kCols;
  }
  // The low byte of a value is its low digit.
  store_digits(rounded, order, digits);
}

template <int D>
void prepare(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last, int64_t,
             uint8_t* prepared) {
  for (int64_t t = 0; t < tokens; ++t) {
    uint8_t* token = prepared + t * token_bytes(D);
    float* steps = reinterpret_cast<float*>(token + D * kCols);
    for (int64_t k = first; k < last; k += kLutBlock) {
      const int64_t block = (k - first) / kLutBlock;
      prepare_block<D>(x + t * x_stride + k, last - k, token + block * kLutBlock, steps + block, steps + 4 + 2 * block);
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

// Fields of B bits, one a nibble, to bytes: columns p and p + 4 of each byte's eight.
template <int B>
LUTRA_INLINE void store_nibbles(__m512i nibbles, int p, uint8_t* out) {
  const __m512i mask = _mm512_set1_epi8((1 << B) - 1);
  _mm512_store_si512(out + p * 256, _mm512_and_si512(nibbles, mask));
  _mm512_store_si512(out + (p + 4) * 256, _mm512_and_si512(_mm512_srli_epi32(nibbles, 4), mask));
}

// The codes of 16 rows of a chunk; `out` is the first of their bytes.
template <int B>
LUTRA_INLINE void expand_chunk(const uint32_t* codes, int64_t stride, uint8_t* out) {
  const __m512i plane0 = _mm512_loadu_si512(codes);
  const __m512i plane1 = _mm512_loadu_si512(codes + stride);
  const __m512i even = even_pairs(plane0, plane1);
  const __m512i odd = odd_pairs(plane0, plane1);
  if (B == 2) {
    const __m512i mask = _mm512_set1_epi8(3);
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) {
      _mm512_store_si512(out + 2 * i * 256, _mm512_and_si512(_mm512_srli_epi32(even, 2 * i), mask));
      _mm512_store_si512(out + (2 * i + 1) * 256, _mm512_and_si512(_mm512_srli_epi32(odd, 2 * i), mask));
    }
    return;
  }
  const __m512i plane2 = _mm512_loadu_si512(codes + 2 * stride);
  if (B == 3) {
    // Bit 2 of a nibble is plane 2's; bit 3 is left over from the pairs.
    constexpr uint32_t kThird = 0x44444444u;
    store_nibbles<B>(select(kThird, _mm512_slli_epi32(plane2, 2), even), 0, out);
    store_nibbles<B>(select(kThird, _mm512_slli_epi32(plane2, 1), odd), 1, out);
    store_nibbles<B>(select(kThird, plane2, _mm512_srli_epi32(even, 2)), 2, out);
    store_nibbles<B>(select(kThird, _mm512_srli_epi32(plane2, 1), _mm512_srli_epi32(odd, 2)), 3, out);
    return;
  }
  const __m512i plane3 = _mm512_loadu_si512(codes + 3 * stride);
  const __m512i even_high = even_pairs(plane2, plane3);
  const __m512i odd_high = odd_pairs(plane2, plane3);
  constexpr uint32_t kLow = 0x33333333u;
  store_nibbles<B>(select(kLow, even, _mm512_slli_epi32(even_high, 2)), 0, out);
  store_nibbles<B>(select(kLow, odd, _mm512_slli_epi32(odd_high, 2)), 1, out);
  store_nibbles<B>(select(kLow, _mm512_srli_epi32(even, 2), even_high), 2, out);
  store_nibbles<B>(select(kLow, _mm512_srli_epi32(odd, 2), odd_high), 3, out);
}

template <int B>
void expand_codes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  for (int64_t k = first; k < last; k += kLutChunk) {
    const uint32_t* codes = tile.codes + k / kLutChunk * B * tile.stored_rows;
    uint8_t* out = panel + (k - first) / kLutChunk * kChunkBytes;
    for (int64_t row = 0; row < tile.stored_rows; row += 16)
      expand_chunk<B>(codes + row, tile.stored_rows, out + row * 4);
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

void expand(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  if (tile.bits == 2) expand_codes<2>(tile, first, last, panel);
  if (tile.bits == 3) expand_codes<3>(tile, first, last, panel);
  if (tile.bits == 4) expand_codes<4>(tile, first, last, panel);
  float* folds = reinterpret_cast<float*>(panel + kChunks * kChunkBytes);
  for (int64_t group = first / tile.group_size; group * tile.group_size < last; ++group, folds += kFoldFloats)
    for (int64_t row = 0; row < tile.stored_rows; row += 16) expand_fold(tile, group, row, folds + row);
}

// sum += codes * digits, four bytes a lane. Written out because GCC 12 copies the sum to another register and back
// around its own intrinsic where many sums are live.
LUTRA_INLINE void add_dot(__m512i& sum, __m512i codes, __m512i digits) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(digits));
}

// One digit of a span: sums += codes times digits, R registers of rows times T tokens.
template <int R, int T>
LUTRA_INLINE void add_digits(const uint8_t* panel, const uint8_t* x, int64_t stride, int64_t chunks,
                             __m512i (&sums)[T][R]) {
  for (int64_t p = 0; p < chunks * 8; ++p) {
    __m512i codes[R];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) codes[r] = _mm512_load_si512(panel + p * 256 + r * 64);
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m512i digits = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x + t * stride + p * 4));
      LUTRA_UNROLL
      for (int r = 0; r < R; ++r) add_dot(sums[t][r], codes[r], digits);
    }
  }
}

// The integer sums of a span.
template <int D, int R, int T>
LUTRA_INLINE void span_sums(const uint8_t* panel, const uint8_t* x, int64_t chunks, __m512i (&sums)[T][R]) {
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) sums[t][r] = _mm512_setzero_si512();
  }
  add_digits<R, T>(panel, x, token_bytes(D), chunks, sums);
  if (D == 1) return;
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) sums[t][r] = _mm512_slli_epi32(sums[t][r], 8);
  }
  add_digits<R, T>(panel, x + kCols, token_bytes(D), chunks, sums);
}

// Columns [k, end) of one group: out (+)= scale * (sum of steps * integers) + offset * sum of x.
template <int D, int R, int T>
LUTRA_INLINE void add_group(const uint8_t* panel, const float* fold, const uint8_t* x, int64_t k, int64_t end,
                            float* out, bool accumulate) {
  alignas(64) float part[T * R * 16];
  const float* tail = reinterpret_cast<const float*>(x + D * kCols);
  constexpr int64_t kTailStride = token_bytes(D) / 4;
  bool joins = false;
  for (int64_t at = k; at < end;) {
    const int64_t span_end = lut_span_end(at, end);
    const int64_t chunk = at / kLutChunk;
    __m512i sums[T][R];
    span_sums<D, R, T>(panel + chunk * kChunkBytes, x + at, (span_end + kLutChunk - 1) / kLutChunk - chunk, sums);
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m512 step = _mm512_set1_ps(tail[t * kTailStride + at / kLutBlock]);
      LUTRA_UNROLL
      for (int r = 0; r < R; ++r) {
        float* to = part + (t * R + r) * 16;
        const __m512 before = joins ? _mm512_load_ps(to) : _mm512_setzero_ps();
        _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t][r]), step, before));
      }
    }
    joins = true;
    at = span_end;
  }
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    float total = 0.0f;
    for (int64_t at = k; at < end; at += kLutChunk) total += tail[t * kTailStride + 4 + at / kLutChunk];
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) {
      float* to = out + t * kLutTileRows + 16 * r;
      const __m512 before = accumulate ? _mm512_load_ps(to) : _mm512_setzero_ps();
      const __m512 moved = _mm512_fmadd_ps(_mm512_load_ps(fold + kLutTileRows + 16 * r), _mm512_set1_ps(total), before);
      _mm512_store_ps(to,
                      _mm512_fmadd_ps(_mm512_load_ps(fold + 16 * r), _mm512_load_ps(part + (t * R + r) * 16), moved));
    }
  }
}

template <int D, int R, int T>
void multiply_block(const LutTile& tile, int64_t first, int64_t last, int64_t row, const uint8_t* panel,
                    const uint8_t* x, float* out, bool accumulate) {
  const float* fold = reinterpret_cast<const float*>(panel + kChunks * kChunkBytes) + row;
  for (int64_t k = first; k < last; fold += kFoldFloats) {
    const int64_t end = lut_group_end(k, last, tile.group_size);
    add_group<D, R, T>(panel + row * 4, fold, x, k - first, end - first, out + row, accumulate || k > first);
    k = end;
  }
}

// R registers of rows times all tokens: six at a time, the rest evenly.
template <int D, int R>
void multiply_rows(const LutTile& tile, int64_t first, int64_t last, int64_t row, const uint8_t* panel,
                   const uint8_t* prepared, int64_t tokens, float* sums, bool accumulate) {
  const auto kernel = [](int64_t count) {
    switch (count) {
      case 1:
        return multiply_block<D, R, 1>;
      case 2:
        return multiply_block<D, R, 2>;
      case 3:
        return multiply_block<D, R, 3>;
      case 4:
        return multiply_block<D, R, 4>;
      case 5:
        return multiply_block<D, R, 5>;
      default:
        return multiply_block<D, R, 6>;
    }
  };
  for (int64_t blocks = (tokens + 5) / 6, t = 0; blocks > 0; --blocks) {
    const int64_t count = (tokens - t) / blocks;
    kernel(count)(tile, first, last, row, panel, prepared + t * token_bytes(D), sums + t * kLutTileRows, accumulate);
    t += count;
  }
}

template <int D>
void multiply(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel, const uint8_t* prepared,
              int64_t tokens, float* sums, bool accumulate) {
  if (tile.stored_rows == kLutTileRows)
    return multiply_rows<D, 4>(tile, first, last, 0, panel, prepared, tokens, sums, accumulate);
  for (int64_t row = 0; row < tile.stored_rows; row += 16)
    multiply_rows<D, 1>(tile, first, last, row, panel, prepared, tokens, sums, accumulate);
}

// A product meets: its rounding to the grid and in the step (3), the spans of a group and of a panel, its integer to
// fp32, the scale (2) and a join for each of a panel's groups.
constexpr int64_t kRoundings = 3 + 2 * kChunks + 1 + 2 + kChunks;

constexpr LutPanelKernels kFast = {
    "u8 panels", kCols, kPanelBytes, kRoundings, 127.0f, 0.0, 0.0, prepared_bytes<1>, prepare<1>, expand, multiply<1>,
};
constexpr LutPanelKernels kAccurate = {
    "u8 panels, two digits of x",
    kCols,
    kPanelBytes,
    kRoundings,
    32639.0f,
    0.0,
    0.0,
    prepared_bytes<2>,
    prepare<2>,
    expand,
    multiply<2>,
};

}  // namespace

const LutPanelKernels* lut_gemm_avx512vbmi_panels(LutMode mode, int, bool planes, int64_t group_size, int64_t tokens) {
  // Spans of these panels are whole chunks, their codes integers.
  if (mode == kLutExact || planes || group_size == 16) return tokens > kLutTableTokens ? &kLutPanelsAvx512 : nullptr;
  if (tokens < 2) return nullptr;
  return mode == kLutFast ? &kFast : &kAccurate;
}

}  // namespace lutra
