// The AVX2 set with the dot products of AVX-VNNI.
#include "kernels/lut_gemm/lut_gemm_avxvnni.h"

namespace lutra {

namespace {

void build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
           const LutTables& tables) {
  for (int64_t block = first; block < last; ++block) {
    if (mode == kLutExact) lut_gemm_avx2_build_exact(x, cols, group_size, block, tables);
    if (mode == kLutAccurate) lut_gemm_avx2_build_accurate(x, cols, group_size, block, tables);
    if (mode == kLutFast) lut_gemm_avx2_build_fast(x, cols, group_size, block, tables);
  }
}

void multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  if (mode == kLutExact) lut_gemm_avx2_exact(tile, tables, y, accumulate);
  if (mode == kLutAccurate) lut_gemm_avxvnni_accurate(tile, tables, y, accumulate);
  if (mode == kLutFast) lut_gemm_avxvnni_fast(tile, tables, y, accumulate);
}

// Panels of bytes have one scale a code, and a group begins where a chunk does. Their codes are unpacked once for all
// tokens, which pays as soon as there are two; at 2 bits three.
const LutPanelKernels* panels(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens) {
  if (mode == kLutExact || planes || group_size % kLutChunk)
    return tokens > kLutTableTokens ? &kLutPanelsAvx2 : nullptr;
  if (tokens < (bits == 2 ? 3 : 2)) return nullptr;
  return mode == kLutFast ? &kLutFastPanelsAvxVnni : &kLutAccuratePanelsAvxVnni;
}

const char* describe(LutMode mode, int, bool) {
  const char* names[kLutModes] = {"fp32 tables", "two s8 digits of x", "s8 activations"};
  return names[mode];
}

}  // namespace

const LutGemmKernels kLutGemmAvxVnni = {
    "avxvnni",
    2,
    4,
    {1024, 128, 64},
    {LutRounding::kNothing, LutRounding::kActivations, LutRounding::kActivations},
    build,
    multiply,
    panels,
    describe,
};

}  // namespace lutra
