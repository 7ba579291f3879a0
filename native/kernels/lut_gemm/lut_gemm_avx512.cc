// The base AVX-512 set: fp32 tables in every mode. Without VBMI a table of words is no smaller to look up: vpermw costs
// these processors two instructions' time for 32 lookups, vpermps one for 16, and words would still need a
// multiply-add.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

void build(LutMode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
           const LutTables& tables) {
  for (int64_t block = first; block < last; ++block) lut_gemm_avx512_build_exact(x, cols, group_size, block, tables);
}

void multiply(LutMode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  lut_gemm_avx512_exact(tile, tables, y, accumulate);
}

const LutPanelKernels* panels(LutMode, int, bool, int64_t, int64_t tokens) {
  return tokens > kLutTableTokens ? &kLutPanelsAvx512 : nullptr;
}

const char* describe(LutMode, int, bool) { return "fp32 tables"; }

}  // namespace

const LutGemmKernels kLutGemmAvx512 = {
    "avx512",
    2,
    4,
    {1024, 1024, 1024},
    {LutRounding::kNothing, LutRounding::kNothing, LutRounding::kNothing},
    build,
    multiply,
    panels,
    describe,
};

}  // namespace lutra
