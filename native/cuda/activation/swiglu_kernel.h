// silu(gate) * up, one thread an element.
#pragma once

#include "cuda/abi.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct SwigluKernel {
  using Arguments = LutraCudaSwiglu;
  static constexpr int kThreads = 256;

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t*) {
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (i >= args.count) return;
    const float gate = args.gate[i];
    args.y[i] = gate / (1.0f + exp_of(-gate)) * args.up[i];
  }
};

}  // namespace lutra::cuda
