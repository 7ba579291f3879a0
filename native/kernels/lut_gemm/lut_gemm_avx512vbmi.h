// What the modes with tables of bytes share. Included by them alone.
//
// A register of 64 bytes holds four 16-entry tables; vpermb looks up all 64 nibbles of 16 code words, byte j of a word
// in table j. Low nibbles and high nibbles have a register of tables each: column groups 2j, and 2j + 1.
#pragma once

#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

struct LutIndices {
  __m512i low;
  __m512i high;
};

// (nibble & 15) | 16 * byte
LUTRA_INLINE LutIndices lut_indices(__m512i words) {
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i table_of_byte = _mm512_set1_epi32(0x30201000);
  return {_mm512_ternarylogic_epi32(words, nibble, table_of_byte, 0xea),
          _mm512_ternarylogic_epi32(_mm512_srli_epi16(words, 4), nibble, table_of_byte, 0xea)};
}

// The entries of four tables as words, in the order that packing leaves: lane L holds entries 4L..4L+3 of tables 0, 2
// (first) and 4, 6 (second).
struct LutWords {
  __m512i first;
  __m512i second;
};
LUTRA_INLINE LutWords lut_table_words(const __m512* tables, __m512 inverse) {
  __m512i entries[4];
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) entries[i] = _mm512_cvtps_epi32(_mm512_mul_ps(tables[2 * i], inverse));
  return {_mm512_packs_epi32(entries[0], entries[1]), _mm512_packs_epi32(entries[2], entries[3])};
}

// Bytes packed from two such registers, lane by lane, to table after table.
LUTRA_INLINE void lut_store_table_bytes(__m512i bytes, uint8_t* out) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_store_si512(out, _mm512_permutexvar_epi32(order, bytes));
}

}  // namespace lutra
