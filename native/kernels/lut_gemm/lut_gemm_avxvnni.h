// What the AVX-VNNI files of lut_gemm share. Activations, exact mode and fp32 panels are those of AVX2.
#pragma once

#include "kernels/lut_gemm/lut_gemm_avx2.h"

namespace lutra {

void lut_gemm_avxvnni_fast(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
void lut_gemm_avxvnni_accurate(const LutTile& tile, const LutTables& tables, float* y, bool accumulate);
extern const LutPanelKernels kLutFastPanelsAvxVnni;
extern const LutPanelKernels kLutAccuratePanelsAvxVnni;

// sum += codes * digits, four bytes a lane. Written out because GCC 12 copies the sum to another register and back, or
// to the stack, around its own intrinsic where many sums are live.
LUTRA_INLINE void lut_add_dot(__m256i& sum, __m256i codes, __m256i digits) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(digits));
}

}  // namespace lutra
