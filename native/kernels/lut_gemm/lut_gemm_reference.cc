// The definition of lut_gemm, in plain loops and fp64.
#include "core/half.h"
#include "kernels/lut_gemm/lut_gemm.h"

namespace lutra {

namespace {

double stored(const void* values, int64_t i, LutFloat type) {
  switch (type) {
    case LutFloat::kF16:
      return static_cast<double>(half_to_float(static_cast<const uint16_t*>(values)[i]));
    case LutFloat::kBF16:
      return static_cast<double>(bfloat16_to_float(static_cast<const uint16_t*>(values)[i]));
    case LutFloat::kF32:
      break;
  }
  return static_cast<double>(static_cast<const float*>(values)[i]);
}

}  // namespace

LutGroup lut_gemm_reference_group(const LutTile& tile, int64_t row, int64_t group) {
  LutGroup result = {};
  double alphas = 0.0;
  for (int b = 0; b < tile.bits; ++b) {
    const int64_t line = tile.planes ? group * tile.bits + b : group;
    const double scale = stored(tile.scales, line * tile.stored_rows + row, tile.scale_type);
    result.alphas[b] = tile.planes ? scale : scale * static_cast<double>(1 << b);
    alphas += result.alphas[b];
  }
  const int64_t at = group * tile.stored_rows + row;
  switch (tile.offset) {
    case LutOffset::kNone:
      // alphas[0] is the scale of a uniform row.
      result.offset = tile.planes ? -alphas / 2 : -result.alphas[0] * static_cast<double>(1 << (tile.bits - 1));
      break;
    case LutOffset::kZeroCode:
      result.offset = -result.alphas[0] * static_cast<const uint8_t*>(tile.offsets)[at];
      break;
    case LutOffset::kReal:
      result.offset = stored(tile.offsets, at, tile.offset_type);
      break;
  }
  return result;
}

void lut_gemm_reference_weights(const LutTile& tile, int64_t row, int64_t first, int64_t last, double* weights) {
  for (int64_t k = first; k < last;) {
    const LutGroup group = lut_gemm_reference_group(tile, row, k / tile.group_size);
    const int64_t end = lut_min(last, lut_group_end(k, tile.cols, tile.group_size));
    for (; k < end; ++k) {
      double sum = 0.0;
      for (int b = 0; b < tile.bits; ++b) {
        const uint32_t word = tile.codes[(k / kLutChunk * tile.bits + b) * tile.stored_rows + row];
        if ((word >> (k % kLutChunk)) & 1u) sum += group.alphas[b];
      }
      weights[k - first] = sum + group.offset;
    }
  }
}

void lut_gemm_reference(const LutTile& tile, const float* x, double* y) {
  double weights[kLutBlock];
  for (int64_t row = 0; row < tile.rows; ++row) {
    double sum = 0.0;
    for (int64_t k = 0; k < tile.cols; k += kLutBlock) {
      const int64_t end = lut_min(tile.cols, k + kLutBlock);
      lut_gemm_reference_weights(tile, row, k, end, weights);
      for (int64_t i = 0; i < end - k; ++i) sum += weights[i] * static_cast<double>(x[k + i]);
    }
    y[row] = sum;
  }
}

}  // namespace lutra
