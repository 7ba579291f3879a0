// The set with the tile unit: tables as the AVX-512 set with VBMI, panels of many tokens by tiles.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

void build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
           const LutTables& tables) {
  kLutGemmAvx512Vbmi.build(mode, x, cols, group_size, first, last, tables);
}

void multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  kLutGemmAvx512Vbmi.multiply(mode, tile, tables, y, accumulate);
}

const char* describe(LutMode mode, int bits, bool planes) { return kLutGemmAvx512Vbmi.describe(mode, bits, planes); }

}  // namespace

const LutGemmKernels kLutGemmAmx = {
    "amx",
    2,
    4,
    {1024, 512, 256},
    {LutRounding::kNothing, LutRounding::kTables, LutRounding::kTables},
    build,
    multiply,
    lut_gemm_amx_panels,
    describe,
};

}  // namespace lutra
