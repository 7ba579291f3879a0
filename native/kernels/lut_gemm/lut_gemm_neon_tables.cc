// One token: every mode looks up byte tables of 16 entries with TBL, which serves 16 rows at once.
//
// LD4 reads 16 rows' words of a plane and deals their bytes: register j holds byte j of each row, columns 8 j .. 8 j +
// 7 of the chunk, so both nibbles of a register index one table each. An entry is one byte (fast), the two bytes of a
// 16-bit value (accurate) or the four of an fp32 value (exact), each byte in a table of its own.
//
// Bounds, per row and span of 64 columns, 16 lookups a plane and (uniform) planes weighing 1, 2, 4, 8, 15 in all:
//   fast      16 * 126 * 15 = 30240 < 2^15
//   accurate  low bytes, unsigned: 16 * 255 * 15 = 61200 < 2^16; high bytes: 16 * 128 * 15 = 30720 < 2^15;
//             high * 256 + low: < 2^23, exact in fp32
// so 16-bit lanes take a whole span and nothing saturates or wraps.
#include "kernels/lut_gemm/lut_gemm_neon.h"

namespace lutra {

namespace {

constexpr int kTableBytes = 16;  // of one byte of the entries

// What a plane adds to 16 rows in 16-bit lanes; `low` is unused by single bytes.
struct Sums {
  int16x8_t high[2];
  uint16x8_t low[2];
};

template <int Bytes>
struct IntegerTables {
  static constexpr int64_t kChunkBytes = 8 * Bytes * kTableBytes;

  static inline __attribute__((always_inline)) void add(uint8x16_t index, const uint8_t* table, Sums& sums) {
    const uint8_t* last = table + (Bytes - 1) * kTableBytes;
    const int8x16_t high = vqtbl1q_s8(vreinterpretq_s8_u8(vld1q_u8(last)), index);
    sums.high[0] = vaddw_s8(sums.high[0], vget_low_s8(high));
    sums.high[1] = vaddw_high_s8(sums.high[1], high);
    if (Bytes == 1) return;
    const uint8x16_t low = vqtbl1q_u8(vld1q_u8(table), index);
    sums.low[0] = vaddw_u8(sums.low[0], vget_low_u8(low));
    sums.low[1] = vaddw_high_u8(sums.low[1], low);
  }

  // Bytes First .. Last - 1 of the words, 8 columns each.
  template <int First, int Last>
  static inline __attribute__((always_inline)) void add_words(const uint8x16x4_t& words, const uint8_t* entries,
                                                              Sums& sums) {
    LUTRA_UNROLL
    for (int j = First; j < Last; ++j) {
      add(vandq_u8(words.val[j], vdupq_n_u8(15)), entries + 2 * j * Bytes * kTableBytes, sums);
      add(vshrq_n_u8(words.val[j], 4), entries + (2 * j + 1) * Bytes * kTableBytes, sums);
    }
  }

  // Rows 4 v .. 4 v + 3 of the sums.
  static inline __attribute__((always_inline)) float32x4_t widened(const Sums& sums, int v) {
    const int16x8_t high = sums.high[v / 2];
    const int16x4_t high4 = v % 2 ? vget_high_s16(high) : vget_low_s16(high);
    if (Bytes == 1) return vcvtq_f32_s32(vmovl_s16(high4));
    const uint16x8_t low = sums.low[v / 2];
    const uint16x4_t low4 = v % 2 ? vget_high_u16(low) : vget_low_u16(low);
    const uint32x4_t value = vaddw_u16(vreinterpretq_u32_s32(vshll_n_s16(high4, 8)), low4);
    return vcvtq_f32_s32(vreinterpretq_s32_u32(value));
  }

  // sums = 2 * sums + next.
  static inline __attribute__((always_inline)) void double_and_add(Sums& sums, const Sums& next) {
    LUTRA_UNROLL
    for (int i = 0; i < 2; ++i) {
      sums.high[i] = vaddq_s16(vshlq_n_s16(sums.high[i], 1), next.high[i]);
      if (Bytes == 2) sums.low[i] = vaddq_u16(vshlq_n_u16(sums.low[i], 1), next.low[i]);
    }
  }

  template <int B, bool P, int First, int Last>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, LutRows* rows) {
    Sums sums[B] = {};
    const uint32_t* codes = span.codes;
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk) {
      const uint8_t* entries = span.entries + chunk * kChunkBytes;
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b, codes += span.stride) {
        const uint8x16x4_t words = vld4q_u8(reinterpret_cast<const uint8_t*>(codes));
        add_words<First, Last>(words, entries, sums[b]);
      }
    }
    if (!P) {
      LUTRA_UNROLL
      for (int b = B - 2; b >= 0; --b) {
        double_and_add(sums[b + 1], sums[b]);
        sums[b] = sums[b + 1];
      }
    }
    LUTRA_UNROLL
    for (int b = 0; b < (P ? B : 1); ++b) {
      LUTRA_UNROLL
      for (int v = 0; v < 4; ++v) rows[b].v[v] = vfmaq_n_f32(rows[b].v[v], widened(sums[b], v), span.step);
    }
  }
};

struct FloatTables {
  static constexpr int64_t kChunkBytes = 8 * 4 * kTableBytes;

  // Four bytes looked up for 16 rows, put together to their fp32 values.
  static inline __attribute__((always_inline)) void add(uint8x16_t index, const uint8_t* table, LutRows& sums) {
    const uint8x16x4_t tables = vld1q_u8_x4(table);
    uint8x16_t bytes[4];
    LUTRA_UNROLL
    for (int i = 0; i < 4; ++i) bytes[i] = vqtbl1q_u8(tables.val[i], index);
    const uint16x8_t lower[2] = {vreinterpretq_u16_u8(vzip1q_u8(bytes[0], bytes[1])),
                                 vreinterpretq_u16_u8(vzip2q_u8(bytes[0], bytes[1]))};
    const uint16x8_t upper[2] = {vreinterpretq_u16_u8(vzip1q_u8(bytes[2], bytes[3])),
                                 vreinterpretq_u16_u8(vzip2q_u8(bytes[2], bytes[3]))};
    LUTRA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const uint16x8_t even = vzip1q_u16(lower[i], upper[i]);
      const uint16x8_t odd = vzip2q_u16(lower[i], upper[i]);
      sums.v[2 * i] = vaddq_f32(sums.v[2 * i], vreinterpretq_f32_u16(even));
      sums.v[2 * i + 1] = vaddq_f32(sums.v[2 * i + 1], vreinterpretq_f32_u16(odd));
    }
  }

  template <int First, int Last>
  static inline __attribute__((always_inline)) void add_words(const uint8x16x4_t& words, const uint8_t* entries,
                                                              LutRows& sums) {
    LUTRA_UNROLL
    for (int j = First; j < Last; ++j) {
      add(vandq_u8(words.val[j], vdupq_n_u8(15)), entries + 2 * j * 4 * kTableBytes, sums);
      add(vshrq_n_u8(words.val[j], 4), entries + (2 * j + 1) * 4 * kTableBytes, sums);
    }
  }

  template <int B, bool P, int First, int Last>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, LutRows* rows) {
    const uint32_t* codes = span.codes;
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk) {
      const uint8_t* entries = span.entries + chunk * kChunkBytes;
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b, codes += span.stride) {
        const uint8x16x4_t words = vld4q_u8(reinterpret_cast<const uint8_t*>(codes));
        LutRows sums = {};
        add_words<First, Last>(words, entries, sums);
        // A power of two is an exact factor: the codes' planes share one sum.
        LutRows& total = rows[P ? b : 0];
        LUTRA_UNROLL
        for (int v = 0; v < 4; ++v) total.v[v] = vfmaq_n_f32(total.v[v], sums.v[v], P ? 1.0f : 1 << b);
      }
    }
  }
};

// The centred table of four columns: entry e is sum_i (bit i of e ? +x_i : -x_i) / 2. Negation is exact, so entries of
// opposite patterns are exact opposites.
LUTRA_INLINE void make_table(const float* x, float32x4_t* table) {
  const float32x4_t first = {-0.5f, 0.5f, -0.5f, 0.5f};
  const float32x4_t second = {-0.5f, -0.5f, 0.5f, 0.5f};
  const float32x4_t lower = vaddq_f32(vmulq_n_f32(first, x[0]), vmulq_n_f32(second, x[1]));
  const float32x4_t upper = vaddq_f32(vmulq_n_f32(first, x[2]), vmulq_n_f32(second, x[3]));
  table[0] = vaddq_f32(lower, vdupq_laneq_f32(upper, 0));
  table[1] = vaddq_f32(lower, vdupq_laneq_f32(upper, 1));
  table[2] = vaddq_f32(lower, vdupq_laneq_f32(upper, 2));
  table[3] = vaddq_f32(lower, vdupq_laneq_f32(upper, 3));
}

// What one unit of a fixed-point entry is worth, and its inverse; both zero for a block that counts as zero. NaN and
// infinity need no care here: they reach every y through the sums.
struct Step {
  float step;
  float inverse;
};
Step block_step(const float32x4_t (*fp)[4], float limit) {
  float32x4_t largest = vdupq_n_f32(0.0f);
  for (int q = 0; q < 16; ++q)
    for (int i = 0; i < 4; ++i) largest = vmaxq_f32(largest, vabsq_f32(fp[q][i]));
  const float most = vmaxvq_f32(largest);
  if (!(most >= kLutSmallest)) return {0.0f, 0.0f};
  return {most / limit, limit / most};
}

// Entries of four columns, rounded; one or two bytes each.
void store_integers(const float32x4_t* fp, float inverse, int bytes, uint8_t* out) {
  int16x4_t words[4];
  for (int i = 0; i < 4; ++i) words[i] = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(fp[i], inverse)));
  const int16x8_t low = vcombine_s16(words[0], words[1]);
  const int16x8_t high = vcombine_s16(words[2], words[3]);
  vst1q_s8(reinterpret_cast<int8_t*>(out), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
  if (bytes == 1) return;
  const int8x16_t upper = vcombine_s8(vshrn_n_s16(low, 8), vshrn_n_s16(high, 8));
  vst1q_s8(reinterpret_cast<int8_t*>(out) + kTableBytes, upper);
}

void store_floats(const float32x4_t* fp, uint8_t* out) {
  float values[16];
  for (int i = 0; i < 4; ++i) vst1q_f32(values + 4 * i, fp[i]);
  const uint8x16x4_t bytes = vld4q_u8(reinterpret_cast<const uint8_t*>(values));
  for (int i = 0; i < 4; ++i) vst1q_u8(out + i * kTableBytes, bytes.val[i]);
}

void build_block(LutMode mode, const float* x, uint8_t* entries, float* step, float* sums16) {
  float32x4_t fp[16][4];
  for (int q = 0; q < 16; ++q) make_table(x + 4 * q, fp[q]);
  for (int run = 0; run < 4; ++run) {
    const float* source = x + 16 * run;
    sums16[run] = vaddvq_f32(vaddq_f32(vaddq_f32(vld1q_f32(source), vld1q_f32(source + 4)),
                                       vaddq_f32(vld1q_f32(source + 8), vld1q_f32(source + 12))));
  }
  if (mode == kLutExact) {
    *step = 1.0f;
    for (int q = 0; q < 16; ++q) store_floats(fp[q], entries + q * 4 * kTableBytes);
    return;
  }
  const int bytes = mode == kLutFast ? 1 : 2;
  const Step scale = block_step(fp, mode == kLutFast ? kLutByteEntry : 32767.0f);
  *step = scale.step;
  for (int q = 0; q < 16; ++q) store_integers(fp[q], scale.inverse, bytes, entries + q * bytes * kTableBytes);
}

}  // namespace

void lut_gemm_neon_build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
                         const LutTables& tables) {
  const int64_t block_bytes = 16 * kTableBytes * (mode == kLutExact ? 4 : mode == kLutAccurate ? 2 : 1);
  float padded[kLutBlock];
  float sums16[4];
  for (int64_t block = first; block < last; ++block) {
    const float* source = lut_block(x, cols, block, padded);
    build_block(mode, source, tables.entries + block * block_bytes, tables.steps + block, sums16);
    lut_store_sums(sums16, block, cols, group_size, tables.sums);
  }
}

void lut_gemm_neon_multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  if (mode == kLutExact) lut_tile_product<FloatTables>(tile, tables, y, accumulate);
  if (mode == kLutAccurate) lut_tile_product<IntegerTables<2>>(tile, tables, y, accumulate);
  if (mode == kLutFast) lut_tile_product<IntegerTables<1>>(tile, tables, y, accumulate);
}

const char* lut_gemm_neon_describe(LutMode mode, int, bool) {
  const char* names[kLutModes] = {"fp32 tables", "s16 tables", "s8 tables"};
  return names[mode];
}

}  // namespace lutra
