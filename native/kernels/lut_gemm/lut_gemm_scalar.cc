// lut_gemm in plain C++: every width, every machine. Fixed-point activations instead of tables.
#include "core/half.h"
#include "kernels/lut_gemm/lut_gemm.h"

namespace lutra {

namespace {

constexpr int kMaxBits = 8;
constexpr int kRows = 16;  // a tile stores a multiple of these

float stored(const void* values, int64_t i, LutFloat type) {
  switch (type) {
    case LutFloat::kF16:
      return half_to_float(static_cast<const uint16_t*>(values)[i]);
    case LutFloat::kBF16:
      return bfloat16_to_float(static_cast<const uint16_t*>(values)[i]);
    case LutFloat::kF32:
      break;
  }
  return static_cast<const float*>(values)[i];
}

// Halves away from zero; |value| <= 32767.
int16_t rounded(float value) { return static_cast<int16_t>(value + (value < 0.0f ? -0.5f : 0.5f)); }

void build_exact(const float* x, float* entries, float* sums16) {
  for (int run = 0; run < 4; ++run) {
    sums16[run] = 0.0f;
    for (int i = run * 16; i < run * 16 + 16; ++i) {
      entries[i] = x[i];
      sums16[run] += x[i];
    }
  }
}

// limit: 127 or 32767. Returns the step. A block with a NaN or an infinity has a step of NaN.
float build_fixed(const float* x, int limit, int16_t* entries, float* sums16) {
  float largest = 0.0f;
  float poison = 0.0f;
  for (int i = 0; i < kLutBlock; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    largest = magnitude > largest ? magnitude : largest;
    poison += x[i] * 0.0f;
  }
  const bool usable = largest >= kLutSmallest && poison == 0.0f;
  const float step = usable ? largest / static_cast<float>(limit) : poison;
  const float inverse = usable ? static_cast<float>(limit) / largest : 0.0f;
  for (int run = 0; run < 4; ++run) {
    int32_t sum = 0;
    for (int i = run * 16; i < run * 16 + 16; ++i) {
      entries[i] = usable ? rounded(x[i] * inverse) : int16_t{0};
      sum += entries[i];
    }
    sums16[run] = static_cast<float>(sum) * step;
  }
  return step;
}

void build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
           const LutTables& tables) {
  float padded[kLutBlock];
  float sums16[4];
  for (int64_t block = first; block < last; ++block) {
    const float* source = lut_block(x, cols, block, padded);
    if (mode == kLutExact) {
      build_exact(source, reinterpret_cast<float*>(tables.entries) + block * kLutBlock, sums16);
    } else {
      int16_t* entries = reinterpret_cast<int16_t*>(tables.entries) + block * kLutBlock;
      tables.steps[block] = build_fixed(source, mode == kLutFast ? 127 : 32767, entries, sums16);
    }
    lut_store_sums(sums16, block, cols, group_size, tables.sums);
  }
}

// What a span adds to 16 rows, as the loops below keep it: by plane, so that a plane needs no multiplication and the
// compiler may put the rows in lanes.
struct Totals {
  float plane[kMaxBits][kRows] = {};  // uniform rows use the first: the sum over codes
};

// sums[r] += x of the columns whose bit is set, columns [k, end) of one chunk.
void add_bits(const uint32_t* words, const int16_t* x, int64_t k, int64_t end, int32_t* sums) {
  for (; k < end; ++k) {
    const int to_sign = static_cast<int>(31 - k % kLutChunk);
    for (int r = 0; r < kRows; ++r) sums[r] += x[k] & (static_cast<int32_t>(words[r] << to_sign) >> 31);
  }
}

// sums[r] += x where the bit is set, -x where it is not.
void add_signs(const uint32_t* words, const float* x, int64_t k, int64_t end, float* sums) {
  for (; k < end; ++k) {
    const int to_sign = static_cast<int>(31 - k % kLutChunk);
    const uint32_t value = __builtin_bit_cast(uint32_t, x[k]);
    for (int r = 0; r < kRows; ++r)
      sums[r] += __builtin_bit_cast(float, value ^ (~(words[r] << to_sign) & 0x80000000u));
  }
}

const uint32_t* words_of(const LutTile& tile, int64_t row, int64_t k, int b) {
  return tile.codes + (k / kLutChunk * tile.bits + b) * tile.stored_rows + row;
}

int64_t chunk_end(int64_t k, int64_t end) { return lut_min(end, (k / kLutChunk + 1) * kLutChunk); }

// Twice the centred sums, exact in integers: a span has 64 columns, 2 * 64 * 32767 * 255 < 2^31.
void add_fixed_span(const LutTile& tile, int64_t row, int64_t begin, int64_t end, const int16_t* x, float step,
                    Totals* totals) {
  int32_t all = 0;
  for (int64_t k = begin; k < end; ++k) all += x[k];
  int32_t codes[kRows] = {};
  for (int b = 0; b < tile.bits; ++b) {
    int32_t sums[kRows] = {};
    for (int64_t k = begin; k < end; k = chunk_end(k, end))
      add_bits(words_of(tile, row, k, b), x, k, chunk_end(k, end), sums);
    for (int r = 0; r < kRows; ++r) {
      const int32_t centred = 2 * sums[r] - all;
      codes[r] += centred * (1 << b);
      if (tile.planes) totals->plane[b][r] += static_cast<float>(centred) * (0.5f * step);
    }
  }
  if (tile.planes) return;
  for (int r = 0; r < kRows; ++r) totals->plane[0][r] += static_cast<float>(codes[r]) * (0.5f * step);
}

// The centred sums in fp32: at most 64 additions a plane. Powers of two are exact factors.
void add_exact_span(const LutTile& tile, int64_t row, int64_t begin, int64_t end, const float* x, Totals* totals) {
  for (int b = 0; b < tile.bits; ++b) {
    float sums[kRows] = {};
    for (int64_t k = begin; k < end; k = chunk_end(k, end))
      add_signs(words_of(tile, row, k, b), x, k, chunk_end(k, end), sums);
    float* plane = totals->plane[tile.planes ? b : 0];
    const float unit = tile.planes ? 0.5f : 0.5f * static_cast<float>(1 << b);
    for (int r = 0; r < kRows; ++r) plane[r] += sums[r] * unit;
  }
}

// sum_b alpha_b * totals_b + c * sum, see the centred form in lut_gemm.h.
float fold_group(const LutTile& tile, int64_t group, int64_t row, const Totals& totals, int r, float sum) {
  const int planes = tile.planes ? tile.bits : 1;
  float result = 0.0f;
  float alphas = 0.0f;
  for (int b = 0; b < planes; ++b) {
    const float alpha = stored(tile.scales, (group * planes + b) * tile.stored_rows + row, tile.scale_type);
    result += alpha * totals.plane[b][r];
    alphas += alpha;
  }
  const float half = tile.planes ? 0.5f : 0.5f * static_cast<float>((1 << tile.bits) - 1);
  const int64_t at = group * tile.stored_rows + row;
  float c = 0.0f;
  if (tile.offset == LutOffset::kReal) c = stored(tile.offsets, at, tile.offset_type) + alphas * half;
  if (tile.offset == LutOffset::kZeroCode)
    c = alphas * (half - static_cast<float>(static_cast<const uint8_t*>(tile.offsets)[at]));
  if (tile.offset == LutOffset::kNone && !tile.planes) c = -0.5f * alphas;
  return result + c * sum;
}

// Columns [k, end), all in `group`: parts += what they give 16 rows.
void add_group(LutMode mode, const LutTile& tile, const LutTables& tables, int64_t group, int64_t row, int64_t k,
               int64_t end, float* parts) {
  Totals totals;
  float sum = 0.0f;
  while (k < end) {
    const int64_t span_end = lut_span_end(k, end);
    if (mode == kLutExact) {
      add_exact_span(tile, row, k, span_end, reinterpret_cast<const float*>(tables.entries), &totals);
    } else {
      const int16_t* entries = reinterpret_cast<const int16_t*>(tables.entries);
      add_fixed_span(tile, row, k, span_end, entries, tables.steps[k / kLutBlock], &totals);
    }
    sum += tables.sums[k / 16];
    k = span_end;
  }
  for (int r = 0; r < kRows; ++r) parts[r] += fold_group(tile, group, row + r, totals, r, sum);
}

void multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  for (int64_t row = 0; row < tile.rows; row += kRows) {
    float total[kRows] = {};
    int64_t group = 0;
    for (int64_t k = 0; k < tile.cols;) {
      const int64_t segment_end = lut_min(tile.cols, k + kLutSegment);
      float parts[kRows] = {};
      while (k < segment_end) {
        const int64_t end = lut_min(segment_end, (group + 1) * tile.group_size);
        add_group(mode, tile, tables, group, row, k, end, parts);
        k = end;
        if (end == (group + 1) * tile.group_size) ++group;
      }
      for (int r = 0; r < kRows; ++r) total[r] += parts[r];
    }
    for (int64_t r = 0; r < lut_min(kRows, tile.rows - row); ++r)
      y[row + r] = accumulate ? y[row + r] + total[r] : total[r];
  }
}

void expand(const LutTile& tile, int64_t first, int64_t last, uint8_t* bytes) {
  float* panel = reinterpret_cast<float*>(bytes);
  double weights[kLutPanelCols];
  for (int64_t row = 0; row < tile.stored_rows; ++row) {
    lut_gemm_reference_weights(tile, row, first, last, weights);
    for (int64_t i = 0; i < last - first; ++i) panel[i * kLutTileRows + row] = static_cast<float>(weights[i]);
  }
}

void multiply_panel(const LutTile& tile, int64_t first, int64_t last, const uint8_t* bytes, const uint8_t* prepared,
                    int64_t tokens, float* sums, bool accumulate) {
  const float* panel = reinterpret_cast<const float*>(bytes);
  const float* x = reinterpret_cast<const float*>(prepared);
  for (int64_t t = 0; t < tokens; ++t) {
    float part[kLutTileRows] = {};
    for (int64_t k = 0; k < last - first; ++k)
      for (int64_t r = 0; r < tile.rows; ++r) part[r] += panel[k * kLutTileRows + r] * x[t * kLutPanelCols + k];
    float* out = sums + t * kLutTileRows;
    for (int64_t r = 0; r < tile.rows; ++r) out[r] = accumulate ? out[r] + part[r] : part[r];
  }
}

constexpr LutPanelKernels kPanels = {
    "fp32 panels", kLutPanelCols, kLutPanelBytes, kLutPanelCols + 1, 1,      kLutBlock,      0.0f,
    0.0,           0.0,           lut_fp32_bytes, lut_fp32_prepare,  expand, multiply_panel,
};

const LutPanelKernels* panels(LutMode, int, bool, int64_t, int64_t tokens) {
  return tokens > kLutTableTokens ? &kPanels : nullptr;
}

const char* describe(LutMode mode, int, bool) { return mode == kLutExact ? "fp32 activations" : "s16 activations"; }

}  // namespace

const LutGemmKernels kLutGemmScalar = {
    "scalar",
    1,
    kMaxBits,
    {kLutBlock * 4, kLutBlock * 2, kLutBlock * 2},
    {LutRounding::kNothing, LutRounding::kActivations, LutRounding::kActivations},
    build,
    multiply,
    panels,
    describe,
};

}  // namespace lutra
