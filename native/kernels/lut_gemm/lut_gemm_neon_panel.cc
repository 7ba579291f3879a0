// Many tokens: weights expanded to an fp32 panel [column][64 rows], and the panel times the tokens by FMLA.
#include "kernels/lut_gemm/lut_gemm_neon_codes.h"

namespace lutra {

namespace {

// Weights of 4 rows, 16 columns of one group. Uniform: (code - z) * s + offset, where code - z is exact, so one
// rounding for a zero code and for none; planes: the offset plus each alpha whose bit is set.
struct Expander {
  float32x4_t start;    // what the sum of set bits starts from: -z, or the offset of planes
  float32x4_t unit[4];  // planes only: the alphas
  float32x4_t scale;    // uniform only, applied at the end
  float32x4_t offset;

  static inline Expander of(const LutTile& tile, int64_t group, int64_t row) {
    const int64_t at = group * tile.stored_rows + row;
    Expander e;
    e.offset = tile.offset == LutOffset::kReal ? lut_load(tile.offsets, at, tile.offset_type) : vdupq_n_f32(0.0f);
    if (tile.planes) {
      float32x4_t alphas = vdupq_n_f32(0.0f);
      for (int b = 0; b < tile.bits; ++b) {
        e.unit[b] = lut_load(tile.scales, (group * tile.bits + b) * tile.stored_rows + row, tile.scale_type);
        alphas = vaddq_f32(alphas, e.unit[b]);
      }
      e.start = tile.offset == LutOffset::kNone ? vmulq_n_f32(alphas, -0.5f) : e.offset;
      e.scale = vdupq_n_f32(0.0f);
      return e;
    }
    e.scale = lut_load(tile.scales, at, tile.scale_type);
    e.start = vdupq_n_f32(0.0f);
    if (tile.offset == LutOffset::kNone) e.start = vdupq_n_f32(-static_cast<float>(1 << (tile.bits - 1)));
    if (tile.offset == LutOffset::kZeroCode) e.start = vnegq_f32(lut_load_codes(tile.offsets, at));
    return e;
  }
};

// The low 16 bits of the words. Columns past the last one get weights too: nobody reads them.
template <int B, bool P>
void expand_columns(const Expander& e, const uint32x4_t* words, float* panel) {
  const LutFields<B> codes(words);
  _Pragma("GCC unroll 16") for (int i = 0; i < 16; ++i) {
    float32x4_t w = e.start;
    if (P) {
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b) {
        const uint32x4_t set = vtstq_u32(words[b], vdupq_n_u32(1u << i));
        w = vaddq_f32(w, vreinterpretq_f32_u32(vandq_u32(set, vreinterpretq_u32_f32(e.unit[b]))));
      }
    } else {
      w = vfmaq_f32(e.offset, vaddq_f32(vcvtq_f32_u32(codes.column(i)), w), e.scale);
    }
    vst1q_f32(panel + i * kLutTileRows, w);
  }
}

template <int B, bool P>
void expand_panel(const LutTile& tile, int64_t first, int64_t last, float* panel) {
  for (int64_t row = 0; row < tile.stored_rows; row += 4)
    for (int64_t k = first; k < last; k += 16) {
      // Groups begin at multiples of 16, so 16 columns have one group.
      const Expander e = Expander::of(tile, k / tile.group_size, row);
      const uint32_t* codes = tile.codes + k / kLutChunk * B * tile.stored_rows + row;
      uint32x4_t words[B];
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b)
        words[b] = vshlq_u32(vld1q_u32(codes + b * tile.stored_rows), vdupq_n_s32(-static_cast<int>(k % kLutChunk)));
      expand_columns<B, P>(e, words, panel + (k - first) * kLutTileRows + row);
    }
}

// 16 rows of one column times T tokens; x[t] holds the column's activation in lane Lane.
template <int Lane, int T>
LUTRA_INLINE void add_column(const float* panel, const float32x4_t* x, float32x4_t (*sums)[4]) {
  const float32x4x4_t w = vld1q_f32_x4(panel);
  LUTRA_UNROLL
  for (int v = 0; v < 4; ++v) {
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) sums[t][v] = vfmaq_laneq_f32(sums[t][v], w.val[v], x[t], Lane);
  }
}

// 16 rows times T tokens.
template <int T>
void multiply_block(const float* panel, int64_t depth, const float* x, float* out, bool accumulate) {
  float32x4_t sums[T][4] = {};
  float32x4_t values[T];
  int64_t k = 0;
  for (; k + 4 <= depth; k += 4) {
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) values[t] = vld1q_f32(x + t * kLutPanelCols + k);
    add_column<0, T>(panel + k * kLutTileRows, values, sums);
    add_column<1, T>(panel + (k + 1) * kLutTileRows, values, sums);
    add_column<2, T>(panel + (k + 2) * kLutTileRows, values, sums);
    add_column<3, T>(panel + (k + 3) * kLutTileRows, values, sums);
  }
  for (; k < depth; ++k) {
    LUTRA_UNROLL
    for (int t = 0; t < T; ++t) values[t] = vld1q_dup_f32(x + t * kLutPanelCols + k);
    add_column<0, T>(panel + k * kLutTileRows, values, sums);
  }
  LUTRA_UNROLL
  for (int t = 0; t < T; ++t) {
    LUTRA_UNROLL
    for (int v = 0; v < 4; ++v) {
      float* at = out + t * kLutTileRows + 4 * v;
      vst1q_f32(at, vaddq_f32(accumulate ? vld1q_f32(at) : vdupq_n_f32(0.0f), sums[t][v]));
    }
  }
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
  const int64_t depth = last - first;
  // Four tokens of 16 rows: 16 registers of sums, 4 of weights, 4 of activations.
  for (int64_t row = 0; row < tile.rows; row += 16) {
    const float* w = panel + row;
    int64_t t = 0;
    const auto next = [&](auto block, int64_t count) {
      block(w, depth, x + t * kLutPanelCols, sums + t * kLutTileRows + row, accumulate);
      t += count;
    };
    while (t + 4 <= tokens) next(multiply_block<4>, 4);
    if (t + 2 <= tokens) next(multiply_block<2>, 2);
    if (t < tokens) next(multiply_block<1>, 1);
  }
}

}  // namespace

const LutPanelKernels kLutPanelsNeon = {
    "fp32 panels", kLutPanelCols, kLutPanelBytes, kLutPanelCols + 1, 1,      kLutBlock, 0.0f,
    0.0,           0.0,           lut_fp32_bytes, lut_fp32_prepare,  expand, multiply,
};

}  // namespace lutra
