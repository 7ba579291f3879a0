// Exact mode: fp32 tables of 16 entries in two registers. vpermps reads the low three bits of an index; the fourth,
// moved to the sign, chooses between the halves.
#include "kernels/lut_gemm/lut_gemm_avx2.h"

namespace lutra {

namespace {

struct Exact {
  static constexpr int64_t kChunkBytes = 512;
  static constexpr bool kCentred = true;

  template <int Nibble>
  static inline __attribute__((always_inline)) __m256 look_up(__m256i words, const float* table) {
    const __m256i index = Nibble ? _mm256_srli_epi32(words, 4 * Nibble) : words;
    const __m256i fourth = Nibble == 7 ? words : _mm256_slli_epi32(words, 28 - 4 * Nibble);
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 16 * Nibble), index);
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 16 * Nibble + 8), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(fourth));
  }

  // Nibbles First .. First + 3: 16 columns.
  template <int First>
  static inline __attribute__((always_inline)) __m256 half_chunk(__m256i words, const float* table) {
    const __m256 a = _mm256_add_ps(look_up<First>(words, table), look_up<First + 1>(words, table));
    const __m256 b = _mm256_add_ps(look_up<First + 2>(words, table), look_up<First + 3>(words, table));
    return _mm256_add_ps(a, b);
  }

  template <int B, bool P>
  static inline __attribute__((always_inline)) void span(const LutSpan& span, __m256* sums) {
    constexpr int kSums = P ? B : 1;
    LUTRA_UNROLL
    for (int b = 0; b < kSums; ++b) sums[b] = _mm256_setzero_ps();
    for (int64_t chunk = 0; chunk < span.chunks; ++chunk) {
      const float* table = reinterpret_cast<const float*>(span.entries + chunk * kChunkBytes);
      LUTRA_UNROLL
      for (int b = 0; b < B; ++b) {
        const uint32_t* codes = span.codes + (chunk * B + b) * span.stride;
        const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
        __m256 sum;
        if (span.bits == 0xffffffffu) {
          sum = _mm256_add_ps(half_chunk<0>(words, table), half_chunk<4>(words, table));
        } else if (span.bits == 0x0000ffffu) {
          sum = half_chunk<0>(words, table);
        } else {
          sum = half_chunk<4>(words, table);
        }
        // A power of two is an exact factor: the codes' planes share one sum.
        __m256& total = sums[P ? b : 0];
        total = P ? _mm256_add_ps(total, sum) : _mm256_fmadd_ps(sum, _mm256_set1_ps(1 << b), total);
      }
    }
  }
};

// Entries e = 0..7 of the centred table of four columns (bit 3 clear), and 8..15 from the same three lower columns.
LUTRA_INLINE void store_table(const float* x, float* table) {
  const __m256 negative = _mm256_set1_ps(-0.0f);
  const __m256 signs[3] = {
      _mm256_setr_ps(-0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f),
      _mm256_setr_ps(-0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f),
      _mm256_setr_ps(-0.0f, -0.0f, -0.0f, -0.0f, 0.0f, 0.0f, 0.0f, 0.0f),
  };
  __m256 sum = _mm256_xor_ps(_mm256_set1_ps(0.5f * x[0]), signs[0]);
  sum = _mm256_add_ps(sum, _mm256_xor_ps(_mm256_set1_ps(0.5f * x[1]), signs[1]));
  sum = _mm256_add_ps(sum, _mm256_xor_ps(_mm256_set1_ps(0.5f * x[2]), signs[2]));
  const __m256 last = _mm256_set1_ps(0.5f * x[3]);
  _mm256_store_ps(table, _mm256_add_ps(sum, _mm256_xor_ps(last, negative)));
  _mm256_store_ps(table + 8, _mm256_add_ps(sum, last));
}

}  // namespace

void lut_gemm_avx2_build_exact(const float* x, int64_t cols, int64_t group_size, int64_t block,
                               const LutTables& tables) {
  float padded[kLutBlock];
  const float* source = lut_block(x, cols, block, padded);
  float sums16[4];
  for (int run = 0; run < 4; ++run)
    sums16[run] = lut_sum(_mm256_add_ps(_mm256_loadu_ps(source + 16 * run), _mm256_loadu_ps(source + 16 * run + 8)));
  lut_store_sums(sums16, block, cols, group_size, tables.sums);
  tables.steps[block] = 1.0f;
  float* entries = reinterpret_cast<float*>(tables.entries + block * 2 * Exact::kChunkBytes);
  for (int q = 0; q < 16; ++q) store_table(source + 4 * q, entries + 16 * q);
}

void lut_gemm_avx2_exact(const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_tile_product<Exact>(tile, tables, y, accumulate);
}

}  // namespace lutra
