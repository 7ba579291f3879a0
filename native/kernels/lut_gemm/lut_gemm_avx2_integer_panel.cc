// The panels of bytes, and their products by vpmaddubsw.
//
// No saturation: a step adds two products of a code (15 at most) and a digit (-128..127) to 16 bits, a chunk eight
// steps: 8 * 2 * 15 * 128 = 30720 < 32768. Then 32 bits: a span has 64 columns at most, |sum| <= 64 * 15 * 32639 <
// 2^25.
#include "kernels/lut_gemm/lut_gemm_avx2_integer_panel.h"

namespace lutra {

namespace {

template <int Digits>
void prepare(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last, uint8_t* prepared) {
  for (int64_t t = 0; t < tokens; ++t) {
    uint8_t* token = prepared + t * kLutByteToken<Digits>;
    float* steps = reinterpret_cast<float*>(token + Digits * kLutBytePanelCols);
    for (int64_t k = first; k < last; k += kLutBlock) {
      float padded[kLutBlock];
      const float* source = x + t * x_stride + k;
      if (last - k < kLutBlock) source = lut_block(source, last - k, 0, padded);
      const int64_t block = (k - first) / kLutBlock;
      uint8_t* digits = token + block * kLutBlock;
      float sums16[4];
      // Digit 0 is the low one and lies behind the high one.
      steps[block] = lut_round_block<Digits>(source, digits + (Digits - 1) * kLutBytePanelCols, kLutChunk,
                                             -kLutBytePanelCols, sums16);
      steps[4 + 2 * block] = sums16[0] + sums16[1];
      steps[5 + 2 * block] = sums16[2] + sums16[3];
    }
  }
}

template <int B>
void expand_codes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  for (int64_t k = first; k < last; k += kLutChunk)
    for (int64_t row = 0; row < tile.stored_rows; row += 8) {
      const uint32_t* codes = tile.codes + k / kLutChunk * B * tile.stored_rows + row;
      __m256i words[B];
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b)
        words[b] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + b * tile.stored_rows));
      const LutFields<B> fields(words);
      uint8_t* out = panel + (k - first) / kLutChunk * kLutBytePanelChunkBytes + row * 4;
      LUTRA_UNROLL
      for (int p = 0; p < 8; ++p)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + p * 4 * kLutTileRows), fields.step(p));
    }
}

// Scale and offset of 8 rows.
void expand_fold(const LutTile& tile, int64_t group, int64_t row, float* out) {
  const int64_t at = group * tile.stored_rows + row;
  const __m256 scale = lut_load(tile.scales, at, tile.scale_type);
  __m256 zero = _mm256_set1_ps(static_cast<float>(1 << (tile.bits - 1)));
  if (tile.offset == LutOffset::kZeroCode) zero = lut_load_codes(tile.offsets, at);
  __m256 offset = _mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(scale, zero));
  if (tile.offset == LutOffset::kReal) offset = lut_load(tile.offsets, at, tile.offset_type);
  _mm256_store_ps(out, scale);
  _mm256_store_ps(out + kLutTileRows, offset);
}

struct MultiplyAdd {
  static constexpr int kTokens = 4;

  template <int T, int64_t Stride>
  static inline __attribute__((always_inline)) void add_digits(const uint8_t* panel, const uint8_t* x, int64_t chunks,
                                                               __m256i (&sums)[T][2]) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      __m256i words[T][2];
      LUTRA_UNROLL
      for (int t = 0; t < T; ++t) words[t][0] = words[t][1] = _mm256_setzero_si256();
      for (int64_t p = 8 * chunk; p < 8 * chunk + 8; ++p) {
        const __m256i low = lut_panel_codes(panel, p, 0);
        const __m256i high = lut_panel_codes(panel, p, 1);
        LUTRA_UNROLL
        for (int t = 0; t < T; ++t) {
          const __m256i digits = lut_panel_digits(x + t * Stride, p);
          words[t][0] = _mm256_add_epi16(words[t][0], _mm256_maddubs_epi16(low, digits));
          words[t][1] = _mm256_add_epi16(words[t][1], _mm256_maddubs_epi16(high, digits));
        }
      }
      const __m256i ones = _mm256_set1_epi16(1);
      LUTRA_UNROLL
      for (int t = 0; t < T; ++t) {
        sums[t][0] = _mm256_add_epi32(sums[t][0], _mm256_madd_epi16(words[t][0], ones));
        sums[t][1] = _mm256_add_epi32(sums[t][1], _mm256_madd_epi16(words[t][1], ones));
      }
    }
  }
};

}  // namespace

void lut_gemm_avx2_prepare_fast(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last, int64_t,
                                uint8_t* prepared) {
  prepare<1>(x, x_stride, tokens, first, last, prepared);
}

void lut_gemm_avx2_prepare_accurate(const float* x, int64_t x_stride, int64_t tokens, int64_t first, int64_t last,
                                    int64_t, uint8_t* prepared) {
  prepare<2>(x, x_stride, tokens, first, last, prepared);
}

void lut_gemm_avx2_expand_bytes(const LutTile& tile, int64_t first, int64_t last, uint8_t* panel) {
  if (tile.bits == 2) expand_codes<2>(tile, first, last, panel);
  if (tile.bits == 3) expand_codes<3>(tile, first, last, panel);
  if (tile.bits == 4) expand_codes<4>(tile, first, last, panel);
  float* folds = reinterpret_cast<float*>(panel + kLutBytePanelChunks * kLutBytePanelChunkBytes);
  for (int64_t group = first / tile.group_size; group * tile.group_size < last; ++group, folds += kLutBytePanelFolds)
    for (int64_t row = 0; row < tile.stored_rows; row += 8) expand_fold(tile, group, row, folds + row);
}

const LutPanelKernels kLutFastPanelsAvx2 = lut_byte_panels<MultiplyAdd, 1>("panels of s8 by maddubs");
const LutPanelKernels kLutAccuratePanelsAvx2 = lut_byte_panels<MultiplyAdd, 2>("panels of two s8 digits by maddubs");

}  // namespace lutra
