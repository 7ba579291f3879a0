// From the sums of one block to y: parts of a token, ranges of columns and the sub-branch, always added in the same
// order.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/lut_gemm/sub_branch_kernel.h"

namespace lutra::cuda {

// True for the block that comes last of `count` at this counter, which it then sets to zero for the next launch. What
// the others wrote before they came is readable to all of its threads. `flag`: a word of shared memory.
LUTRA_DEVICE bool comes_last(uint32_t* counter, uint32_t count, uint32_t* flag) {
  sync_block();
  if (thread_index() == 0) {
    const bool last = publish(counter) + 1 == count;
    if (last) *counter = 0;
    *flag = last ? 1u : 0u;
  }
  sync_block();
  const bool last = *flag != 0;
  if (last) after_look();
  return last;
}

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
