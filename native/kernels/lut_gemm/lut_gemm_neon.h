// What the NEON files of lut_gemm share: loads of stored values, the walk over a tile, the fold of a group. Included by
// them alone.
//
// Rows are taken 16 at a time, the step in which tiles store them. A mode supplies
//   Policy::kChunkBytes              bytes of `entries` of a 32-column chunk
//   Policy::span<B, P, First, Last>(span, sums)
//                                    sums[b] += the centred sums of 16 rows over the span, in units of x, of bytes
//                                    [First, Last) of each code word, 8 columns each
#pragma once

#include <arm_neon.h>

#include "kernels/lut_gemm/lut_gemm.h"

#define LUTRA_INLINE static inline __attribute__((always_inline))
#define LUTRA_UNROLL _Pragma("GCC unroll 8")

namespace lutra {

// For every level: one token, panels in fp32, and which of the two.
void lut_gemm_neon_build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
                         const LutTables& tables);
void lut_gemm_neon_multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
const LutPanelKernels* lut_gemm_neon_panels(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens);
const char* lut_gemm_neon_describe(LutMode mode, int bits, bool planes);
extern const LutPanelKernels kLutPanelsNeon;

// 4 stored values from element i on, as fp32.
LUTRA_INLINE float32x4_t lut_load(const void* values, int64_t i, LutFloat type) {
  if (type == LutFloat::kF32) return vld1q_f32(static_cast<const float*>(values) + i);
  const uint16x4_t raw = vld1_u16(static_cast<const uint16_t*>(values) + i);
  if (type == LutFloat::kF16) return vcvt_f32_f16(vreinterpret_f16_u16(raw));
  return vreinterpretq_f32_u32(vshll_n_u16(raw, 16));
}

// The same for 4 * Quads values: the type is looked at once.
template <int Quads>
LUTRA_INLINE void lut_load_rows(const void* values, int64_t i, LutFloat type, float32x4_t* out) {
  switch (type) {
    case LutFloat::kF32:
      LUTRA_UNROLL
      for (int v = 0; v < Quads; ++v) out[v] = lut_load(values, i + 4 * v, LutFloat::kF32);
      break;
    case LutFloat::kF16:
      LUTRA_UNROLL
      for (int v = 0; v < Quads; ++v) out[v] = lut_load(values, i + 4 * v, LutFloat::kF16);
      break;
    case LutFloat::kBF16:
      LUTRA_UNROLL
      for (int v = 0; v < Quads; ++v) out[v] = lut_load(values, i + 4 * v, LutFloat::kBF16);
      break;
  }
}

LUTRA_INLINE float32x4_t lut_load_codes(const void* values, int64_t i) {
  uint32_t raw;
  __builtin_memcpy(&raw, static_cast<const uint8_t*>(values) + i, 4);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(raw)));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
}

// 16 rows, four to a register.
struct LutRows {
  float32x4_t v[4];
};

// y's first `count` of four rows become `sums`, or have them added.
static inline void lut_store_rows(float* y, float32x4_t sums, int64_t count, bool accumulate) {
  if (count >= 4) {
    vst1q_f32(y, accumulate ? vaddq_f32(vld1q_f32(y), sums) : sums);
    return;
  }
  float values[4];
  vst1q_f32(values, sums);
  for (int64_t r = 0; r < count; ++r) y[r] = accumulate ? y[r] + values[r] : values[r];
}

// f += sum_b alpha_b * t_b + c * sum for 16 rows from `row` on, c as lut_gemm.h defines it.
template <int B, bool P>
LUTRA_INLINE void lut_fold(const LutTile& tile, int64_t group, int64_t row, const LutRows* t, float sum, LutRows& f) {
  const int64_t at = group * tile.stored_rows + row;
  const float half = P ? 0.5f : 0.5f * ((1 << B) - 1);
  LutRows total = f;
  LutRows alphas;
  LUTRA_UNROLL
  for (int b = 0; b < (P ? B : 1); ++b) {
    LutRows alpha;
    lut_load_rows<4>(tile.scales, P ? (group * B + b) * tile.stored_rows + row : at, tile.scale_type, alpha.v);
    LUTRA_UNROLL
    for (int v = 0; v < 4; ++v) {
      total.v[v] = vfmaq_f32(total.v[v], alpha.v[v], t[b].v[v]);
      alphas.v[v] = b == 0 ? alpha.v[v] : vaddq_f32(alphas.v[v], alpha.v[v]);
    }
  }
  LutRows c = {};
  switch (tile.offset) {
    case LutOffset::kNone:
      LUTRA_UNROLL
      for (int v = 0; v < 4; ++v) c.v[v] = vmulq_n_f32(alphas.v[v], P ? 0.0f : -0.5f);
      break;
    case LutOffset::kZeroCode:
      LUTRA_UNROLL
      for (int v = 0; v < 4; ++v) {
        const float32x4_t zero = lut_load_codes(tile.offsets, at + 4 * v);
        c.v[v] = vmulq_f32(alphas.v[v], vsubq_f32(vdupq_n_f32(half), zero));
      }
      break;
    case LutOffset::kReal:
      lut_load_rows<4>(tile.offsets, at, tile.offset_type, c.v);
      LUTRA_UNROLL
      for (int v = 0; v < 4; ++v) c.v[v] = vfmaq_n_f32(c.v[v], alphas.v[v], half);
      break;
  }
  LUTRA_UNROLL
  for (int v = 0; v < 4; ++v) f.v[v] = vfmaq_n_f32(total.v[v], c.v[v], sum);
}

struct LutSpan {
  const uint32_t* codes;   // the span's first chunk, first of its rows
  int64_t stride;          // stored rows: from plane to plane; a chunk is B of them
  const uint8_t* entries;  // of the first chunk
  int64_t chunks;
  float step;
};

constexpr int kLutRowSets = kLutTileRows / 16;  // in a full tile

// Columns [k, end), all in `group`: f += their part of the tile. All rows go through a span before the next one: the
// code stream is read in order, the sums wait in L1.
template <class Policy, int B, bool P>
static void lut_add_group(const LutTile& tile, const LutTables& tables, int64_t group, int64_t k, int64_t end,
                          LutRows* f) {
  constexpr int kSums = P ? B : 1;
  const int sets = static_cast<int>(tile.stored_rows / 16);
  LutRows t[kLutRowSets][kSums] = {};
  float sum = 0.0f;
  while (k < end) {
    const int64_t span_end = lut_span_end(k, end);
    const int64_t chunk = k / kLutChunk;
    LutSpan span = {tile.codes + chunk * B * tile.stored_rows, tile.stored_rows,
                    tables.entries + chunk * Policy::kChunkBytes, (span_end + kLutChunk - 1) / kLutChunk - chunk,
                    tables.steps[k / kLutBlock]};
    for (int s = 0; s < sets; ++s, span.codes += 16) {
      if (tile.group_size != 16) {
        Policy::template span<B, P, 0, 4>(span, t[s]);
      } else if (k % kLutChunk == 0) {
        Policy::template span<B, P, 0, 2>(span, t[s]);
      } else {
        Policy::template span<B, P, 2, 4>(span, t[s]);
      }
    }
    sum += tables.sums[k / 16];
    k = span_end;
  }
  for (int s = 0; s < sets; ++s) lut_fold<B, P>(tile, group, 16 * s, t[s], sum, f[s]);
}

template <class Policy, int B, bool P>
static void lut_tile_rows(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  const int sets = static_cast<int>(tile.stored_rows / 16);
  LutRows total[kLutRowSets] = {};
  int64_t group = 0;
  for (int64_t k = 0; k < tile.cols;) {
    const int64_t segment_end = lut_min(tile.cols, k + kLutSegment);
    LutRows f[kLutRowSets] = {};
    while (k < segment_end) {
      const int64_t end = lut_min(segment_end, (group + 1) * tile.group_size);
      lut_add_group<Policy, B, P>(tile, tables, group, k, end, f);
      k = end;
      if (end == (group + 1) * tile.group_size) ++group;
    }
    for (int s = 0; s < sets; ++s) {
      LUTRA_UNROLL
      for (int v = 0; v < 4; ++v) total[s].v[v] = vaddq_f32(total[s].v[v], f[s].v[v]);
    }
  }
  for (int64_t row = 0; row < tile.rows; row += 4)
    lut_store_rows(y + row, total[row / 16].v[row / 4 % 4], tile.rows - row, accumulate);
}

template <class Policy>
static void lut_tile_product(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  switch (tile.bits) {
    case 2:
      return tile.planes ? lut_tile_rows<Policy, 2, true>(tile, tables, y, accumulate)
                         : lut_tile_rows<Policy, 2, false>(tile, tables, y, accumulate);
    case 3:
      return tile.planes ? lut_tile_rows<Policy, 3, true>(tile, tables, y, accumulate)
                         : lut_tile_rows<Policy, 3, false>(tile, tables, y, accumulate);
    default:
      return tile.planes ? lut_tile_rows<Policy, 4, true>(tile, tables, y, accumulate)
                         : lut_tile_rows<Policy, 4, false>(tile, tables, y, accumulate);
  }
}

}  // namespace lutra
