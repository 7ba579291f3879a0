// The AVX2 set with the dot products of AVX-VNNI.
#include "kernels/lut_gemm/lut_gemm_avxvnni.h"

namespace lutra {

namespace {

void build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
           const LutTables& tables) {
  kLutGemmAvx2.build(mode, x, cols, group_size, first, last, tables);
}

void multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  if (mode == kLutExact) kLutGemmAvx2.multiply(mode, tile, tables, y, accumulate);
  if (mode == kLutAccurate) lut_gemm_avxvnni_accurate(tile, tables, y, accumulate);
  if (mode == kLutFast) lut_gemm_avxvnni_fast(tile, tables, y, accumulate);
}

// Where AVX2 multiplies bytes, the dot products do.
const LutPanelKernels* panels(LutMode mode, int bits, bool planes, int64_t group_size, int64_t tokens) {
  const LutPanelKernels* chosen = kLutGemmAvx2.panels(mode, bits, planes, group_size, tokens);
  if (chosen == &kLutFastPanelsAvx2) return &kLutFastPanelsAvxVnni;
  return chosen == &kLutAccuratePanelsAvx2 ? &kLutAccuratePanelsAvxVnni : chosen;
}

const char* describe(LutMode mode, int bits, bool planes) { return kLutGemmAvx2.describe(mode, bits, planes); }

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
