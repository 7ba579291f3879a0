// Many tokens in fast and accurate mode: integer panels times signed bytes by vpdpbusd.
#include "kernels/lut_gemm/lut_gemm_avx512.h"
#include "kernels/lut_gemm/lut_gemm_integer_panel.h"

namespace lutra {

namespace {

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
  add_digits<R, T>(panel, x, integer_token_bytes(D), chunks, sums);
  if (D == 1) return;
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    LUTRA_UNROLL
    for (int r = 0; r < R; ++r) sums[t][r] = _mm512_slli_epi32(sums[t][r], 8);
  }
  add_digits<R, T>(panel, x + kIntegerCols, integer_token_bytes(D), chunks, sums);
}

// Columns [k, end) of the panel, one group: out (+)= scale * (sum of steps * integers) + offset * sum of x.
template <int D, int R, int T>
LUTRA_INLINE void add_group(const uint8_t* panel, const float* fold, const uint8_t* x, int64_t k, int64_t end,
                            float* out, bool accumulate) {
  const float* tail = reinterpret_cast<const float*>(x + D * kIntegerCols);
  constexpr int64_t kTailStride = integer_token_bytes(D) / 4;
  while (k < end) {
    const int64_t span_end = integer_span_end(k, end);
    const int64_t chunk = k / kLutChunk;
    __m512i sums[T][R];
    span_sums<D, R, T>(panel + chunk * kIntegerChunkBytes, x + k, (span_end + kLutChunk - 1) / kLutChunk - chunk, sums);
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m512 step = _mm512_set1_ps(tail[t * kTailStride + k / kIntegerBlock]);
      const __m512 sum = _mm512_set1_ps(tail[t * kTailStride + kIntegerSums + chunk]);
      LUTRA_UNROLL
      for (int r = 0; r < R; ++r) {
        float* to = out + t * kLutTileRows + 16 * r;
        const __m512 before = accumulate ? _mm512_load_ps(to) : _mm512_setzero_ps();
        const __m512 moved = _mm512_fmadd_ps(_mm512_load_ps(fold + kLutTileRows + 16 * r), sum, before);
        const __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[t][r]), step);
        _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_load_ps(fold + 16 * r), value, moved));
      }
    }
    accumulate = true;
    k = span_end;
  }
}

template <int D, int R, int T>
void multiply_block(const LutTile& tile, int64_t first, int64_t last, int64_t row, const uint8_t* panel,
                    const uint8_t* x, float* out, bool accumulate) {
  const float* fold = reinterpret_cast<const float*>(panel + kIntegerFoldAt) + row;
  for (int64_t k = first; k < last; fold += kIntegerFoldFloats) {
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
    kernel(count)(tile, first, last, row, panel, prepared + t * integer_token_bytes(D), sums + t * kLutTileRows,
                  accumulate);
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

constexpr LutPanelKernels kFast = integer_panels<1>("u8 panels", multiply<1>);
constexpr LutPanelKernels kFastPlanes = integer_planes_panels("u8 panels of rounded values", multiply<1>);
constexpr LutPanelKernels kAccurate = integer_panels<2>("u8 panels, two digits of x", multiply<2>);

}  // namespace

const LutPanelKernels* lut_gemm_avx512vbmi_panels(LutMode mode, int bits, bool planes, int64_t group_size,
                                                  int64_t tokens) {
  // Spans of these panels are whole chunks, their codes integers.
  const bool integers = mode == kLutFast || (mode == kLutAccurate && !planes);
  if (!integers || group_size == 16) return tokens > kLutTableTokens ? &kLutPanelsAvx512 : nullptr;
  // Looked up for two tokens sooner than unpacked: two bits, and planes, whose values cost a table of their own.
  const bool quick = mode == kLutFast && (bits == 2 || planes);
  if (tokens < (quick ? 3 : 2)) return nullptr;
  if (mode == kLutAccurate) return &kAccurate;
  return planes ? &kFastPlanes : &kFast;
}

}  // namespace lutra
