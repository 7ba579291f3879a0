// Many tokens: weights expanded to an fp32 panel [column][64 rows], and the panel times the tokens by FMA.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

// Weights of 16 rows, up to 16 columns of one group. Uniform: (code - z) * s + offset, where code - z is exact, so one
// rounding for a zero code and for none; planes: the offset plus each alpha whose bit is set.
struct Expander {
  __m512 start;    // what the sum of set bits starts from: -z, or the offset of planes
  __m512 unit[4];  // what a plane's bit adds: 2^b, or its alpha
  __m512 scale;    // uniform only, applied at the end
  __m512 offset;

  static inline Expander of(const LutTile& tile, int64_t group, int64_t row) {
    const int64_t at = group * tile.stored_rows + row;
    Expander e;
    e.offset = tile.offset == LutOffset::kReal ? lut_load(tile.offsets, at, tile.offset_type) : _mm512_setzero_ps();
    if (tile.planes) {
      __m512 alphas = _mm512_setzero_ps();
      for (int b = 0; b < tile.bits; ++b) {
        e.unit[b] = lut_load(tile.scales, (group * tile.bits + b) * tile.stored_rows + row, tile.scale_type);
        alphas = _mm512_add_ps(alphas, e.unit[b]);
      }
      const bool centred = tile.offset == LutOffset::kNone;
      e.start = centred ? _mm512_mul_ps(alphas, _mm512_set1_ps(-0.5f)) : e.offset;
      e.scale = _mm512_setzero_ps();
      return e;
    }
    for (int b = 0; b < tile.bits; ++b) e.unit[b] = _mm512_set1_ps(static_cast<float>(1 << b));
    e.scale = lut_load(tile.scales, at, tile.scale_type);
    e.start = _mm512_setzero_ps();
    if (tile.offset == LutOffset::kNone) e.start = _mm512_set1_ps(-static_cast<float>(1 << (tile.bits - 1)));
    if (tile.offset == LutOffset::kZeroCode)
      e.start = _mm512_sub_ps(_mm512_setzero_ps(), lut_load_codes(tile.offsets, at));
    return e;
  }
};

template <int B, bool P>
void expand_columns(const Expander& e, const uint32_t* codes, int64_t stride, int bit, int count, float* panel) {
  __m512i words[B];
  LUTRA_UNROLL
  for (int b = 0; b < B; ++b) words[b] = _mm512_loadu_si512(codes + b * stride);
  for (int i = 0; i < count; ++i) {
    const __m512i mask = _mm512_set1_epi32(static_cast<int>(1u << (bit + i)));
    __m512 w = e.start;
    LUTRA_UNROLL
    for (int b = 0; b < B; ++b) w = _mm512_mask_add_ps(w, _mm512_test_epi32_mask(words[b], mask), w, e.unit[b]);
    _mm512_storeu_ps(panel + i * kLutTileRows, P ? w : _mm512_fmadd_ps(w, e.scale, e.offset));
  }
}

template <int B, bool P>
void expand_panel(const LutTile& tile, int64_t first, int64_t last, float* panel) {
  for (int64_t row = 0; row < tile.stored_rows; row += 16)
    for (int64_t k = first; k < last; k += 16) {
      // Groups begin at multiples of 16, so 16 columns have one group.
      const Expander e = Expander::of(tile, k / tile.group_size, row);
      expand_columns<B, P>(e, tile.codes + k / kLutChunk * B * tile.stored_rows + row, tile.stored_rows,
                           static_cast<int>(k % kLutChunk), static_cast<int>(lut_min(16, last - k)),
                           panel + (k - first) * kLutTileRows + row);
    }
}

// V registers of rows times T tokens.
template <int V, int T>
void multiply_block(const float* panel, int64_t depth, const float* x, float* out, bool accumulate) {
  __m512 sums[T][V];
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    LUTRA_UNROLL
    for (int v = 0; v < V; ++v) sums[t][v] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < depth; ++k) {
    __m512 w[V];
    LUTRA_UNROLL
    for (int v = 0; v < V; ++v) w[v] = _mm512_load_ps(panel + k * kLutTileRows + 16 * v);
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m512 value = _mm512_set1_ps(x[t * kLutPanelCols + k]);
      LUTRA_UNROLL
      for (int v = 0; v < V; ++v) sums[t][v] = _mm512_fmadd_ps(w[v], value, sums[t][v]);
    }
  }
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    LUTRA_UNROLL
    for (int v = 0; v < V; ++v) {
      float* at = out + t * kLutTileRows + 16 * v;
      const __m512 before = accumulate ? _mm512_load_ps(at) : _mm512_setzero_ps();
      _mm512_store_ps(at, _mm512_add_ps(before, sums[t][v]));
    }
  }
}

template <int V>
void multiply_rows(const float* panel, int64_t depth, const float* x, int64_t tokens, float* sums, bool accumulate) {
  int64_t t = 0;
  const auto next = [&](auto block, int64_t count) {
    block(panel, depth, x + t * kLutPanelCols, sums + t * kLutTileRows, accumulate);
    t += count;
  };
  while (t + 8 <= tokens) next(multiply_block<V, 8>, 8);
  if (t + 4 <= tokens) next(multiply_block<V, 4>, 4);
  while (t < tokens) next(multiply_block<V, 1>, 1);
}

void expand(const LutTile& tile, int64_t first, int64_t last, uint8_t* bytes) {
  float* panel = reinterpret_cast<float*>(bytes);
  switch (tile.bits) {
    case 2:
      return tile.planes ? expand_panel<2, true>(tile, first, last, panel)
                         : expand_panel<2, false>(tile, first, last, panel);
    case 3:
      return tile.planes ? expand_panel<3, true>(tile, first, last, panel)
                         : expand_panel<3, false>(tile, first, last, panel);
    default:
      return tile.planes ? expand_panel<4, true>(tile, first, last, panel)
                         : expand_panel<4, false>(tile, first, last, panel);
  }
}

void multiply(const LutTile& tile, int64_t first, int64_t last, const uint8_t* bytes, const uint8_t* prepared,
              int64_t tokens, float* sums, bool accumulate) {
  const float* panel = reinterpret_cast<const float*>(bytes);
  const float* x = reinterpret_cast<const float*>(prepared);
  int64_t row = 0;
  for (; row + 32 <= tile.stored_rows; row += 32)
    multiply_rows<2>(panel + row, last - first, x, tokens, sums + row, accumulate);
  if (row < tile.stored_rows) multiply_rows<1>(panel + row, last - first, x, tokens, sums + row, accumulate);
}

}  // namespace

const LutPanelKernels kLutPanelsAvx512 = {
    "fp32 panels", kLutPanelCols, kLutPanelBytes, kLutPanelCols + 1, 1,      kLutBlock, 0.0f,
    0.0,           0.0,           lut_fp32_bytes, lut_fp32_prepare,  expand, multiply,
};

}  // namespace lutra
