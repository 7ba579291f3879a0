// lut_gemm in plain C++: every width, every machine. Fixed-point activations instead of tables.
#include "core/half.h"
#include "kernels/lut_gemm/lut_gemm.h"

namespace lutra {

namespace {

constexpr int kMaxBits = 8;

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

// One row's code words of a chunk, and from them the code of a column.
struct Words {
  uint32_t plane[kMaxBits];

  Words(const LutTile& tile, int64_t row, int64_t chunk) {
    for (int b = 0; b < tile.bits; ++b) plane[b] = tile.codes[(chunk * tile.bits + b) * tile.stored_rows + row];
  }
  int code(int bits, int64_t k) const {
    int value = 0;
    for (int b = 0; b < bits; ++b) value |= static_cast<int>((plane[b] >> (k % kLutChunk)) & 1u) << b;
    return value;
  }
};

// The sums of a span, centred: one for the codes of a uniform row, one a plane otherwise. Exact in integers (64 columns
// * 255 * 32767 < 2^30, twice that after centring); in fp32 at most 64 additions.
template <typename Entry, typename Sum>
void add_span(const LutTile& tile, int64_t row, int64_t begin, int64_t end, const Entry* entries, float unit,
              float* totals) {
  Sum sums[kMaxBits] = {};
  const int centre = tile.planes ? 1 : (1 << tile.bits) - 1;
  for (int64_t k = begin; k < end;) {
    const Words words(tile, row, k / kLutChunk);
    const int64_t stop = lut_min(end, (k / kLutChunk + 1) * kLutChunk);
    for (; k < stop; ++k) {
      const Sum x = static_cast<Sum>(entries[k]);
      if (!tile.planes) {
        sums[0] += static_cast<Sum>(2 * words.code(tile.bits, k) - centre) * x;
        continue;
      }
      for (int b = 0; b < tile.bits; ++b) sums[b] += ((words.plane[b] >> (k % kLutChunk)) & 1u) ? x : -x;
    }
  }
  for (int b = 0; b < (tile.planes ? tile.bits : 1); ++b) totals[b] += static_cast<float>(sums[b]) * unit;
}

// sum_b alpha_b * totals_b + c * sum, see the centred form in lut_gemm.h.
float fold_group(const LutTile& tile, int64_t group, int64_t row, const float* totals, float sum) {
  const int planes = tile.planes ? tile.bits : 1;
  float result = 0.0f;
  float alphas = 0.0f;
  for (int b = 0; b < planes; ++b) {
    const float alpha = stored(tile.scales, (group * planes + b) * tile.stored_rows + row, tile.scale_type);
    result += alpha * totals[b];
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

// Columns [k, end) of one row, all in `group`.
float group_part(LutMode mode, const LutTile& tile, const LutTables& tables, int64_t group, int64_t row, int64_t k,
                 int64_t end) {
  float totals[kMaxBits] = {};
  float sum = 0.0f;
  while (k < end) {
    const int64_t span_end = lut_span_end(k, end);
    if (mode == kLutExact) {
      add_span<float, float>(tile, row, k, span_end, reinterpret_cast<const float*>(tables.entries), 0.5f, totals);
    } else {
      const float unit = 0.5f * tables.steps[k / kLutBlock];
      const int16_t* entries = reinterpret_cast<const int16_t*>(tables.entries);
      add_span<int16_t, int32_t>(tile, row, k, span_end, entries, unit, totals);
    }
    sum += tables.sums[k / 16];
    k = span_end;
  }
  return fold_group(tile, group, row, totals, sum);
}

void multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y) {
  for (int64_t row = 0; row < tile.rows; ++row) {
    float total = 0.0f;
    int64_t group = 0;
    for (int64_t k = 0; k < tile.cols;) {
      const int64_t segment_end = lut_min(tile.cols, k + kLutSegment);
      float part = 0.0f;
      while (k < segment_end) {
        const int64_t end = lut_min(segment_end, (group + 1) * tile.group_size);
        part += group_part(mode, tile, tables, group, row, k, end);
        k = end;
        if (end == (group + 1) * tile.group_size) ++group;
      }
      total += part;
    }
    y[row] = total;
  }
}

void expand(const LutTile& tile, int64_t first, int64_t last, float* panel) {
  double weights[kLutPanelCols];
  for (int64_t row = 0; row < tile.stored_rows; ++row) {
    lut_gemm_reference_weights(tile, row, first, last, weights);
    for (int64_t i = 0; i < last - first; ++i) panel[i * kLutTileRows + row] = static_cast<float>(weights[i]);
  }
}

void multiply_panel(const float* panel, int64_t depth, int64_t rows, const float* x, int64_t x_stride, int64_t tokens,
                    float* y, int64_t y_stride, bool accumulate) {
  for (int64_t t = 0; t < tokens; ++t) {
    float sums[kLutTileRows] = {};
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t r = 0; r < rows; ++r) sums[r] += panel[k * kLutTileRows + r] * x[t * x_stride + k];
    float* out = y + t * y_stride;
    for (int64_t r = 0; r < rows; ++r) out[r] = accumulate ? out[r] + sums[r] : sums[r];
  }
}

}  // namespace

const LutGemmKernels kLutGemmScalar = {
    "scalar",
    0,
    1,
    kMaxBits,
    {kLutBlock * 4, kLutBlock * 2, kLutBlock * 2},
    {LutRounding::kNothing, LutRounding::kActivations, LutRounding::kActivations},
    build,
    multiply,
    expand,
    multiply_panel,
};

}  // namespace lutra
