#include <immintrin.h>

#include "kernels/convert/convert.h"

namespace lutra {

namespace {

// The last, partial vector goes through buffers of eight elements; `Body` converts one whole vector.
template <typename From, typename To, void (*Body)(const From*, To*)>
void each(const From* x, To* y, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) Body(x + i, y + i);
  if (i == count) return;
  From in[8] = {};
  To out[8];
  for (int64_t l = 0; i + l < count; ++l) in[l] = x[i + l];
  Body(in, out);
  for (int64_t l = 0; i + l < count; ++l) y[i + l] = out[l];
}

void from_f16(const uint16_t* x, float* y) {
  _mm256_storeu_ps(y, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
}

void from_bf16(const uint16_t* x, float* y) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  _mm256_storeu_ps(y, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
}

void to_f16(const float* x, uint16_t* y) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT));
}

void to_bf16(const float* x, uint16_t* y) {
  const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x));
  const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff)));
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i top = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(y), narrow);
}

}  // namespace

const ConvertKernels convert_avx2 = {"avx2", each<uint16_t, float, from_f16>, each<uint16_t, float, from_bf16>,
                                     each<float, uint16_t, to_f16>, each<float, uint16_t, to_bf16>};

}  // namespace lutra
