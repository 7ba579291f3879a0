// The AVX-512 set with VBMI, for 8-bit tables, and VNNI, for their sums.
#include "kernels/lut_gemm/lut_gemm_avx512.h"

namespace lutra {

namespace {

void build(LutMode mode, const float* x, int64_t cols, int64_t group_size, int64_t first, int64_t last,
           const LutTables& tables) {
  for (int64_t block = first; block < last; ++block) {
    if (mode == kLutExact) lut_gemm_avx512_build_exact(x, cols, group_size, block, tables);
    if (mode == kLutAccurate) lut_gemm_avx512vbmi_build_accurate(x, cols, group_size, block, tables);
    if (mode == kLutFast) lut_gemm_avx512vbmi_build_fast(x, cols, group_size, block, tables);
  }
}

void multiply(LutMode mode, const LutTile& tile, const LutTables& tables, float* y, bool accumulate) {
  if (mode == kLutExact) lut_gemm_avx512_exact(tile, tables, y, accumulate);
  if (mode == kLutAccurate) lut_gemm_avx512vbmi_accurate(tile, tables, y, accumulate);
  if (mode == kLutFast) lut_gemm_avx512vbmi_fast(tile, tables, y, accumulate);
}

const char* describe(LutMode mode, int, bool) {
  const char* names[kLutModes] = {"fp32 tables", "s16 tables as bytes", "u8 tables"};
  return names[mode];
}

}  // namespace

const LutGemmKernels kLutGemmAvx512Vbmi = {
    "avx512vbmi",
    2,
    4,
    {1024, 512, 256},
    {LutRounding::kNothing, LutRounding::kTables, LutRounding::kTables},
    build,
    multiply,
    lut_gemm_avx512vbmi_panels,
    describe,
};

}  // namespace lutra
