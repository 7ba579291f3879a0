#include "ops/kernel_choices.h"

#include <cstring>

#include "kernels/activation/activation.h"
#include "kernels/attention/attention.h"
#include "kernels/convert/convert.h"
#include "kernels/gemm/gemm.h"
#include "kernels/lut_gemm/lut_gemm.h"
#include "kernels/narrow_gemm/narrow_gemm.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"

namespace lutra {

std::span<const KernelChoice> kernel_choices() {
  // lut_gemm chooses by width; 4 bits stands for the widths that have vector kernels.
  static const KernelChoice choices[] = {
      {"lut_gemm", lut_gemm_kernels(4).name},
      {"gemm", gemm_kernels().name},
      {"narrow_gemm", narrow_gemm_kernels().name},
      {"attention", attention_kernels().name},
      {"activation", activation_kernels().name},
      {"norm", norm_kernels().name},
      {"rope", rope_kernels().name},
      {"convert", convert_kernels().name},
  };
  return choices;
}

namespace {

// No kernel set decides differently beyond this many tokens.
constexpr int64_t kMostTokens = 512;
constexpr int64_t kGroupSize = 128;  // the usual one stands for all

void add_choices(LutMode mode, bool planes, int bits, std::vector<LutChoice>& choices) {
  const char* modes[kLutModes] = {"exact", "accurate", "fast"};
  const LutGemmKernels& kernels = lut_gemm_kernels(bits);
  const char* before = nullptr;
  for (int64_t tokens = 1; tokens <= kMostTokens; ++tokens) {
    const LutPanelKernels* panels = kernels.panels(mode, bits, planes, kGroupSize, tokens);
    const char* way = panels ? panels->name : kernels.describe(mode, bits, planes);
    if (before && !std::strcmp(way, before)) continue;
    if (before) choices.back().last_token = tokens - 1;
    choices.push_back({modes[mode], planes ? "planes" : "uniform", bits, tokens, 0, way});
    before = way;
  }
}

}  // namespace

std::vector<LutChoice> lut_choices() {
  std::vector<LutChoice> choices;
  for (int mode = 0; mode < kLutModes; ++mode)
    for (bool planes : {false, true})
      for (int bits : {2, 3, 4}) add_choices(static_cast<LutMode>(mode), planes, bits, choices);
  return choices;
}

}  // namespace lutra
