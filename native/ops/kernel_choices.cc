#include "ops/kernel_choices.h"

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/convert/convert.h"
#include "kernels/gemm/gemm.h"
#include "kernels/half_gemm/half_gemm.h"
#include "kernels/lut_gemm/lut_gemm.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"

namespace lutra {

std::span<const KernelChoice> kernel_choices() {
  // lut_gemm chooses by width; 4 bits stands for the widths that have vector kernels.
  static const KernelChoice choices[] = {
      {"lut_gemm", lut_gemm_kernels(4).name},
      {"gemm", gemm_kernels().name},
      {"half_gemm", half_gemm_kernels().name},
      {"attention", attention_kernels().name},
      {"activation", activation_kernels().name},
      {"norm", norm_kernels().name},
      {"rope", rope_kernels().name},
      {"convert", convert_kernels().name},
  };
  return choices;
}

}  // namespace lutra
