// Values of planes as bytes, for integer panels. Included by the file that fills them alone.
#pragma once

#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

// The value that a row's planes give a code, rounded to 1 / 255 of their range: u8 tables [code][16 rows].
template <int B>
struct PlaneValues {
  __m512i table[1 << (B - 2)];

  template <int Shift>
  inline __attribute__((always_inline)) __m512i operator()(__m512i fields) const {
    const __m512i rows =
        _mm512_set_epi32(0x0f0f0f0f, 0x0e0e0e0e, 0x0d0d0d0d, 0x0c0c0c0c, 0x0b0b0b0b, 0x0a0a0a0a, 0x09090909, 0x08080808,
                         0x07070707, 0x06060606, 0x05050505, 0x04040404, 0x03030303, 0x02020202, 0x01010101, 0);
    const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << B) - 1) << 4));
    const __m512i moved = Shift < 4 ? _mm512_slli_epi32(fields, Shift < 4 ? 4 - Shift : 0)
                                    : _mm512_srli_epi32(fields, Shift < 4 ? 0 : Shift - 4);
    const __m512i index = _mm512_ternarylogic_epi32(moved, mask, rows, 0xea);  // (moved & mask) | rows
    if constexpr (B == 2) {
      return _mm512_permutexvar_epi8(index, table[0]);
    } else {
      const __m512i low = _mm512_permutex2var_epi8(table[0], index, table[1]);
      if constexpr (B == 3) {
        return low;
      } else {
        const __m512i high = _mm512_permutex2var_epi8(table[2], index, table[3]);
        return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
      }
    }
  }
};

// Tables of the values of 16 rows, codes in order.
template <int B>
LUTRA_INLINE PlaneValues<B> plane_tables(const __m512* values) {
  // Packing leaves at dword 4 * lane + code the four rows of the lane.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  PlaneValues<B> result;
  LUTRA_UNROLL
  for (int i = 0; i < 1 << B; i += 4) {
    const __m512i low = _mm512_packus_epi32(_mm512_cvtps_epi32(values[i]), _mm512_cvtps_epi32(values[i + 1]));
    const __m512i high = _mm512_packus_epi32(_mm512_cvtps_epi32(values[i + 2]), _mm512_cvtps_epi32(values[i + 3]));
    result.table[i / 4] = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
  }
  return result;
}

// 1 / x for normal x, to a unit or two in the last place.
LUTRA_INLINE __m512 reciprocal(__m512 x) {
  const __m512 guess = _mm512_rcp14_ps(x);
  return _mm512_fmadd_ps(guess, _mm512_fnmadd_ps(x, guess, _mm512_set1_ps(1.0f)), guess);
}

// The values of 16 rows of a group, all one where their range is under kLutSmallest, and in `fold` what one unit of
// them is worth and the offset of their least.
template <int B>
LUTRA_INLINE PlaneValues<B> plane_values(const LutTile& tile, int64_t group, int64_t row, float* fold) {
  constexpr int kCodes = 1 << B;
  __m512 alphas[B];
  __m512 least = _mm512_setzero_ps();
  __m512 range = _mm512_setzero_ps();
  __m512 sum = _mm512_setzero_ps();
  LUTRA_UNROLL
  for (int b = 0; b < B; ++b) {
    alphas[b] = lut_load(tile.scales, (group * B + b) * tile.stored_rows + row, tile.scale_type);
    least = _mm512_add_ps(least, _mm512_min_ps(alphas[b], _mm512_setzero_ps()));
    range = _mm512_add_ps(range, _mm512_abs_ps(alphas[b]));
    sum = _mm512_add_ps(sum, alphas[b]);
  }
  const __mmask16 usable = _mm512_cmp_ps_mask(range, _mm512_set1_ps(kLutSmallest), _CMP_GE_OQ);
  const __m512 inverse = _mm512_maskz_mul_ps(usable, _mm512_set1_ps(255.0f), reciprocal(range));
  // In units of a 255th of the range: every code is a smaller one and the alpha of its highest bit.
  __m512 values[kCodes];
  values[0] = _mm512_mul_ps(_mm512_sub_ps(_mm512_setzero_ps(), least), inverse);
  LUTRA_UNROLL
  for (int b = 0; b < B; ++b) {
    const __m512 alpha = _mm512_mul_ps(alphas[b], inverse);
    LUTRA_UNROLL
    for (int code = 0; code < 1 << b; ++code) values[(1 << b) + code] = _mm512_add_ps(values[code], alpha);
  }
  __m512 offset = _mm512_mul_ps(sum, _mm512_set1_ps(-0.5f));
  if (tile.offset == LutOffset::kReal)
    offset = lut_load(tile.offsets, group * tile.stored_rows + row, tile.offset_type);
  _mm512_store_ps(fold, _mm512_mul_ps(range, _mm512_set1_ps(1.0f / 255.0f)));
  _mm512_store_ps(fold + kLutTileRows, _mm512_add_ps(offset, least));
  return plane_tables<B>(values);
}

}  // namespace lutra
