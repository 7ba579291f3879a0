// The base NEON set: any 64-bit Arm processor.
#include "kernels/lut_gemm/lut_gemm_neon.h"

namespace lutra {

namespace {

const LutPanelKernels* panels(LutMode mode, int, bool, int64_t, int64_t tokens) {
  if (tokens <= kLutTableTokens || mode == kLutFast) return nullptr;
  return &kLutPanelsNeon;
}

}  // namespace

const LutGemmKernels kLutGemmNeon = {
    "neon",
    2,
    4,
    {1024, 512, 256},
    {LutRounding::kNothing, LutRounding::kTables, LutRounding::kTables},
    lut_gemm_neon_build,
    lut_gemm_neon_multiply,
    panels,
    lut_gemm_neon_describe,
};

}  // namespace lutra
