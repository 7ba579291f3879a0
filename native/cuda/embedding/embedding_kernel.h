// Rows of a table by their ids, as fp32: one thread an element.
#pragma once

#include "cuda/abi.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct EmbeddingKernel {
  using Arguments = LutraCudaEmbedding;
  static constexpr int kThreads = 256;

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t*) {
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (i >= args.tokens * args.width) return;
    const int64_t id = load(args.ids + i / args.width);
    const bool inside = id >= 0 && id < args.table_rows;
    args.y[i] =
        inside ? stored_float(args.table, id * args.width + i % args.width, args.table_dtype) : float_of(0x7fc00000u);
  }
};

}  // namespace lutra::cuda
