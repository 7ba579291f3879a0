// The base NEON set: any 64-bit Arm processor.
#include "kernels/lut_gemm/lut_gemm_neon.h"

namespace lutra {

// By the instructions that run for a weight and a token: FMLA a third of one; tables an eighth for a plane in fast mode
// and a fifth in accurate mode. Panels have their expansion to make up for.
const LutPanelKernels* lut_gemm_neon_panels(LutMode mode, int bits, bool, int64_t, int64_t tokens) {
  if (mode == kLutFast) return nullptr;
  const int64_t in_tables = mode == kLutAccurate && bits == 2 ? 4 * kLutTableTokens : kLutTableTokens;
  return tokens > in_tables ? &kLutPanelsNeon : nullptr;
}

const LutGemmKernels kLutGemmNeon = {
    "neon",
    2,
    4,
    {1024, 512, 256},
    {LutRounding::kNothing, LutRounding::kTables, LutRounding::kTables},
    lut_gemm_neon_build,
    lut_gemm_neon_multiply,
    lut_gemm_neon_panels,
    lut_gemm_neon_describe,
};

}  // namespace lutra
