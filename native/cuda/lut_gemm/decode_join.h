// From the sums of one block to y: parts of a token, ranges of columns and the sub-branch, always added in the same
// order.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/lut_gemm/sub_branch_kernel.h"
#include "cuda/simt/last_block.h"

namespace lutra::cuda {

// One thread a row. The tile of sums lies at the start of shared memory, [column][kRows].
template <int kRows>
LUTRA_DEVICE void join_rows(const DecodeArguments& args, uint8_t* shared, int row_block, int split) {
  float* const tile = reinterpret_cast<float*>(shared);
  uint32_t* const flag = reinterpret_cast<uint32_t*>(shared);
  const int thread = thread_index();
  const int64_t row = static_cast<int64_t>(row_block) * kRows + thread;
  const bool owns = thread < kRows && row < args.rows;
  if (args.branch.rank > 0) add_branch<kRows>(args, tile, tile + args.tokens * args.parts * kRows, row, split);
  for (int token = 0; owns && token < args.tokens; ++token) {
    float sum = 0.0f;
    for (int part = 0; part < args.parts; ++part) sum += tile[(token * args.parts + part) * kRows + thread];
    if (args.splits == 1)
      store_float(args.y, token * args.rows + row, args.y_dtype, sum);
    else
      args.partials[(static_cast<int64_t>(split) * args.tokens + token) * args.rows + row] = sum;
  }
  if (args.branch.rank > 0 && comes_last(args.counters + kEnded, grid_blocks(), flag) && thread == 0)
    args.counters[kSharesTaken] = args.counters[kSharesDone] = 0;
  if (args.splits == 1 || !comes_last(args.counters + kFirstRowBlock + row_block, args.splits, flag)) return;
  for (int token = 0; owns && token < args.tokens; ++token) {
    float sum = 0.0f;
    for (int s = 0; s < args.splits; ++s)
      sum += load_written(args.partials + (static_cast<int64_t>(s) * args.tokens + token) * args.rows + row);
    store_float(args.y, token * args.rows + row, args.y_dtype, sum);
  }
}

}  // namespace lutra::cuda
