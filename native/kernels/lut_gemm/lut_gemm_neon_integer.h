// Many tokens by integer dot products: weights expanded to bytes of their codes, activations rounded to one signed byte
// (fast) or two (accurate: x = 256 * high + low). Included by the levels that have such instructions, which supply
//   Dot::kRows, Dot::kTokens      what one block of 8 registers of sums covers
//   Dot::add_run(sums, weights, x, x_stride)     16 columns more
//   Dot::steps(steps, i)          the steps of the tokens in register i
//   Dot::rows(sums, token, quad)  rows 4 quad .. 4 quad + 3 of a token
//   Dot::store_codes, Dot::store_x               the order of bytes in panel and prepared activations
//
// Columns are cut into runs of 16. Within a run bytes lie in the order 0, 8, 1, 9, .., 7, 15, as code words unpack.
//   panel     u8 [run][16 columns x 64 rows]: codes of uniform weights. Planes with alphas of their own would need a
//             panel each: tables and fp32 panels take fewer instructions.
//   prepared  s8 [token][digit][run][16] or token pairs interleaved; f32 steps [block][token]; f32 sums [run][token],
//             at a group's first run in the panel the sum of its rounded activations. Tokens are padded with zeros.
//
// Bounds: a span has 64 columns, a code is at most 15: 64 * 15 * 127 < 2^17 and 64 * 15 * 32639 < 2^25 in 32 bits.
#pragma once

#include "kernels/lut_gemm/lut_gemm_neon_codes.h"

namespace lutra {

// Unnamed, so that no copy of one level can stand in for another's.
namespace {

constexpr int kLutSums = 8;  // registers
// A product is converted, joins its group's spans, the groups and their offsets, and the sums of the panels before.
constexpr int64_t kLutIntegerRoundings = 1 + kLutBlocks + 3 * kLutRuns + 1;
constexpr float kLutOneDigit = 127.0f;
constexpr float kLutTwoDigits = 32639.0f;  // 256 * 127 + 127: what two digits reach on both sides

LUTRA_INLINE int64_t lut_padded(int64_t tokens) { return (tokens + 3) / 4 * 4; }

template <int Digits>
struct LutPrepared {
  int8_t* digits;
  float* steps;
  float* sums;
  int64_t tokens;  // padded

  static int64_t bytes(int64_t tokens) {
    const int64_t size = lut_padded(tokens) * (Digits * kLutIntegerCols + 4 * (kLutBlocks + kLutRuns));
    return (size + 63) / 64 * 64;
  }
  static inline LutPrepared of(uint8_t* base, int64_t tokens) {
    const int64_t padded = lut_padded(tokens);
    float* steps = reinterpret_cast<float*>(base + padded * Digits * kLutIntegerCols);
    return {reinterpret_cast<int8_t*>(base), steps, steps + padded * kLutBlocks, padded};
  }
};

struct LutStep {
  float step;
  float inverse;
};

// A NaN or an infinity in the block makes the step NaN, and with it every y.
static inline LutStep lut_block_step(const float* x, float limit) {
  float32x4_t largest = vdupq_n_f32(0.0f);
  float32x4_t poison = vdupq_n_f32(0.0f);
  for (int i = 0; i < kLutBlock; i += 4) {
    const float32x4_t value = vld1q_f32(x + i);
    largest = vmaxq_f32(largest, vabsq_f32(value));
    poison = vfmaq_n_f32(poison, value, 0.0f);
  }
  const float most = vmaxvq_f32(largest);
  const float zero = vaddvq_f32(poison);
  if (!(most >= kLutSmallest) || zero != 0.0f) return {zero, 0.0f};
  return {most / limit, limit / most};
}

LUTRA_INLINE int8x16_t lut_narrow(const int32x4_t* values) {
  const int16x8_t low = vcombine_s16(vmovn_s32(values[0]), vmovn_s32(values[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(values[2]), vmovn_s32(values[3]));
  return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

// 16 activations to their digits, the high one first; returns the sum of what they are rounded to.
template <int Digits>
static inline float lut_run_digits(const float* x, float inverse, int8x16_t* digits) {
  int32x4_t low[4];
  int32x4_t high[4];
  int32x4_t sum = vdupq_n_s32(0);
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int32x4_t value = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse));
    sum = vaddq_s32(sum, value);
    high[i] = vshrq_n_s32(vaddq_s32(value, vdupq_n_s32(128)), 8);
    low[i] = Digits == 1 ? value : vsubq_s32(value, vshlq_n_s32(high[i], 8));
  }
  if (Digits == 2) digits[0] = lut_narrow(high);
  digits[Digits - 1] = lut_narrow(low);
  LUTRA_UNROLL
  for (int d = 0; d < Digits; ++d) digits[d] = vzip1q_s8(digits[d], vextq_s8(digits[d], digits[d], 8));
  return static_cast<float>(vaddvq_s32(sum));
}

// x from column `first` on.
template <class Dot, int Digits>
static void lut_prepare_token(const float* x, int64_t token, int64_t first, int64_t last, int64_t group_size,
                              const LutPrepared<Digits>& prepared) {
  float run_sums[kLutRuns];
  float padded[kLutBlock];
  for (int64_t b = 0; first + b * kLutBlock < last; ++b) {
    const float* source = lut_block(x, last - first, b, padded);
    const LutStep scale = lut_block_step(source, Digits == 1 ? kLutOneDigit : kLutTwoDigits);
    prepared.steps[b * prepared.tokens + token] = scale.step;
    for (int64_t run = b * 4; run < b * 4 + 4; ++run) {
      int8x16_t digits[Digits];
      run_sums[run] = scale.step * lut_run_digits<Digits>(source + (run - b * 4) * kLutRun, scale.inverse, digits);
      for (int d = 0; d < Digits; ++d) Dot::store_x(digits[d], token, d, Digits, run, prepared.digits);
    }
  }
  for (int64_t k = first; k < last;) {
    const int64_t end = lut_min(last, lut_group_end(k, last, group_size));
    float sum = 0.0f;
    for (int64_t run = (k - first) / kLutRun; run * kLutRun < end - first; ++run) sum += run_sums[run];
    prepared.sums[(k - first) / kLutRun * prepared.tokens + token] = sum;
    k = end;
  }
}

template <class Dot, int Digits>
static void lut_prepare_integers(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                 int64_t group_size, uint8_t* bytes) {
  const LutPrepared<Digits> prepared = LutPrepared<Digits>::of(bytes, tokens);
  for (int64_t t = 0; t < tokens; ++t)
    lut_prepare_token<Dot, Digits>(x + t * x_stride + first, t, first, last, group_size, prepared);
  const float zeros[kLutIntegerCols] = {};
  for (int64_t t = tokens; t < prepared.tokens; ++t)
    lut_prepare_token<Dot, Digits>(zeros, t, first, last, group_size, prepared);
}

// What a group adds to every weight of 4 * Quads rows; of scales `scale`.
template <int Quads>
LUTRA_INLINE void lut_offsets(const LutTile& tile, int64_t group, int64_t row, const float32x4_t* scale,
                              float32x4_t* offsets) {
  const int64_t at = group * tile.stored_rows + row;
  if (tile.offset == LutOffset::kReal) return lut_load_rows<Quads>(tile.offsets, at, tile.offset_type, offsets);
  const float centre = static_cast<float>(1 << (tile.bits - 1));
  LUTRA_UNROLL
  for (int v = 0; v < Quads; ++v) {
    const bool codes = tile.offset == LutOffset::kZeroCode;
    const float32x4_t zero = codes ? lut_load_codes(tile.offsets, at + 4 * v) : vdupq_n_f32(centre);
    offsets[v] = vnegq_f32(vmulq_f32(scale[v], zero));
  }
}

// One block of rows and tokens times columns of one panel.
template <class Dot, int Digits>
struct LutIntegerBlock {
  const LutTile& tile;
  const LutPrepared<Digits>& prepared;
  int64_t first;
  int64_t row;
  int64_t token;

  static constexpr int kQuads = Dot::kRows / 4;

  // part = the products of codes in columns [k, end), which are of one group, in units of x.
  inline __attribute__((always_inline)) void add_group(const uint8_t* panel, int64_t k, int64_t end,
                                                       float32x4_t* part) const {
    LUTRA_UNROLL
    for (int i = 0; i < kLutSums; ++i) part[i] = vdupq_n_f32(0.0f);
    const int64_t x_stride = Digits * kLutIntegerCols;  // of a token
    while (k < end) {
      const int64_t span_end = lut_span_end(k, end);
      int32x4_t sums[kLutSums] = {};
      LUTRA_UNROLL
      for (int d = 0; d < Digits; ++d) {
        if (d > 0) {
          LUTRA_UNROLL
          for (int i = 0; i < kLutSums; ++i) sums[i] = vshlq_n_s32(sums[i], 8);
        }
        for (int64_t run = (k - first) / kLutRun; run * kLutRun < span_end - first; ++run)
          Dot::add_run(sums, panel + run * kLutRunBytes + row * Dot::kRowBytes,
                       prepared.digits + token * x_stride + Dot::x_at(d, run), x_stride);
      }
      const float* steps = prepared.steps + (k - first) / kLutBlock * prepared.tokens + token;
      LUTRA_UNROLL
      for (int i = 0; i < kLutSums; ++i) part[i] = vfmaq_f32(part[i], vcvtq_f32_s32(sums[i]), Dot::steps(steps, i));
      k = span_end;
    }
  }

  inline __attribute__((always_inline)) void multiply(const uint8_t* panel, int64_t last, float32x4_t* y) const {
    for (int64_t k = first; k < last;) {
      const int64_t group = k / tile.group_size;
      const int64_t end = lut_min(last, lut_group_end(k, tile.cols, tile.group_size));
      const float* sums = prepared.sums + (k - first) / kLutRun * prepared.tokens + token;
      float32x4_t part[kLutSums];
      float32x4_t scale[kQuads];
      float32x4_t offsets[kQuads];
      add_group(panel, k, end, part);
      lut_load_rows<kQuads>(tile.scales, group * tile.stored_rows + row, tile.scale_type, scale);
      lut_offsets<kQuads>(tile, group, row, scale, offsets);
      LUTRA_UNROLL
      for (int v = 0; v < kQuads; ++v) {
        LUTRA_UNROLL
        for (int t = 0; t < Dot::kTokens; ++t) {
          float32x4_t& sum = y[t * kQuads + v];
          sum = vfmaq_n_f32(vfmaq_f32(sum, scale[v], Dot::rows(part, t, v)), offsets[v], sums[t]);
        }
      }
      k = end;
    }
  }
};

template <class Dot, int Digits>
static void lut_multiply_integers(const LutTile& tile, int64_t first, int64_t last, const uint8_t* panel,
                                  const uint8_t* bytes, int64_t tokens, float* sums, bool accumulate) {
  constexpr int kQuads = Dot::kRows / 4;
  const LutPrepared<Digits> prepared = LutPrepared<Digits>::of(const_cast<uint8_t*>(bytes), tokens);
  for (int64_t row = 0; row < tile.rows; row += Dot::kRows)
    for (int64_t token = 0; token < tokens; token += Dot::kTokens) {
      float32x4_t y[kLutSums] = {};
      LutIntegerBlock<Dot, Digits>{tile, prepared, first, row, token}.multiply(panel, last, y);
      for (int64_t t = 0; t < lut_min(Dot::kTokens, tokens - token); ++t)
        for (int v = 0; v < kQuads; ++v) {
          float* out = sums + (token + t) * kLutTileRows + row + 4 * v;
          const float32x4_t sum = y[t * kQuads + v];
          vst1q_f32(out, accumulate ? vaddq_f32(vld1q_f32(out), sum) : sum);
        }
    }
}

template <class Dot, int Digits>
constexpr LutPanelKernels lut_integer_panels() {
  return {Digits == 1 ? "s8 panels" : "s8 panels, two digits of x",
          kLutIntegerCols,
          kLutIntegerBytes,
          kLutIntegerRoundings,
          1,
          kLutBlock,
          Digits == 1 ? kLutOneDigit : kLutTwoDigits,
          0.0,
          0.0,
          LutPrepared<Digits>::bytes,
          lut_prepare_integers<Dot, Digits>,
          lut_expand_integers<Dot>,
          lut_multiply_integers<Dot, Digits>};
}

template <class Dot, int Digits>
constexpr LutPanelKernels kLutIntegerPanels = lut_integer_panels<Dot, Digits>();

// Integers for many tokens; for all else what every NEON has.
template <class Dot>
const LutPanelKernels* lut_integer_panels_for(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens) {
  if (mode == kLutExact || planes || tokens <= kLutTableTokens)
    return lut_gemm_neon_panels(mode, bits, planes, group_size, tokens);
  return mode == kLutAccurate ? &kLutIntegerPanels<Dot, 2> : &kLutIntegerPanels<Dot, 1>;
}

}  // namespace

}  // namespace lutra
