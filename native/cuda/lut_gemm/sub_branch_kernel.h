// FBQuant's sub-branch inside the decode kernel: y += B (A x), without a launch of its own.
//
// A x is cut into shares, each a sum over one range of columns for eight rows of A. A block takes one before its
// weights, while there are any, and waits for A x only when its weights are done; then it adds its own range of ranks
// of B (A x) to its sums. Before it waits it takes every share that nobody has taken: so blocks wait only for blocks
// that run, however few fit on the device, and a share's sums do not depend on which block makes them.
//
// A x and B t are fp32: A and B are few beside the weights, and x keeps all of its bits.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/fragments.h"
#include "cuda/lut_gemm/stored.h"

namespace lutra::cuda {

constexpr int kBranchTokens = 4;  // that a pass over A or B takes together
constexpr int kBranchRanks = 64;  // of A x in shared memory at a time

// Row `rank` of A against columns [first, end) of tokens from `token` on: the warp's sums, in every lane.
LUTRA_DEVICE void row_products(const DecodeArguments& args, int rank, int64_t first, int64_t end, int token,
                               float (&sums)[kBranchTokens]) {
  LUTRA_UNROLL
  for (int t = 0; t < kBranchTokens; ++t) sums[t] = 0.0f;
  for (int64_t k = first + thread_index() % kWarp * 8; k < end; k += kWarp * 8) {
    float a[8];
    load_eight(args.branch.a, rank * args.cols + k, end - k, args.branch.dtype, a);
    LUTRA_UNROLL
    for (int t = 0; t < kBranchTokens; ++t) {
      if (token + t >= args.tokens) break;
      float x[8];
      load_eight(args.x, (token + t) * args.cols + k, end - k, args.x_dtype, x);
      LUTRA_UNROLL
      for (int i = 0; i < 8; ++i) sums[t] = multiply_add(a[i], x[i], sums[t]);
    }
  }
  LUTRA_UNROLL
  for (int t = 0; t < kBranchTokens; ++t) LUTRA_UNROLL
  for (int mask = 16; mask > 0; mask /= 2) sums[t] += shuffle_xor(sums[t], mask);
}

// Share `share` of A x: rows 8 * (share / k_shares) on, columns of range share % k_shares.
LUTRA_DEVICE_CALL void compute_share(const DecodeArguments& args, int share) {
  const BranchArguments& branch = args.branch;
  const int rank = share / branch.k_shares * kRankBlock + thread_index() / kWarp;
  if (rank >= branch.rank) return;
  const int range = share % branch.k_shares;
  const int64_t first = static_cast<int64_t>(args.units) * range / branch.k_shares * kUnitCols;
  const int64_t whole = static_cast<int64_t>(args.units) * (range + 1) / branch.k_shares * kUnitCols;
  const int64_t end = whole < args.cols ? whole : args.cols;
  for (int token = 0; token < args.tokens; token += kBranchTokens) {
    float sums[kBranchTokens];
    row_products(args, rank, first, end, token, sums);
    LUTRA_UNROLL
    for (int t = 0; t < kBranchTokens; ++t)
      if (thread_index() % kWarp == 0 && token + t < args.tokens)
        branch.sums[(static_cast<int64_t>(range) * args.tokens + token + t) * branch.rank + rank] = sums[t];
  }
}

// Takes and computes up to `most` shares. `word`: of shared memory.
LUTRA_DEVICE void take_shares(const DecodeArguments& args, uint32_t* word, int most) {
  for (int i = 0; i < most; ++i) {
    if (thread_index() == 0) *word = publish(args.counters + kSharesTaken);
    sync_block();
    const uint32_t share = *word;
    if (share >= static_cast<uint32_t>(args.branch.shares)) return;
    compute_share(args, static_cast<int>(share));
    sync_block();
    if (thread_index() == 0) publish(args.counters + kSharesDone);
  }
}

// A x of ranks [first, first + count) into shared memory, [token][count].
LUTRA_DEVICE void fetch_rank_sums(const DecodeArguments& args, float* ranks, int first, int count) {
  const BranchArguments& branch = args.branch;
  for (int i = thread_index(); i < args.tokens * count; i += kDecodeThreads) {
    const int rank = first + i % count;
    const float* const from = branch.sums + static_cast<int64_t>(i / count) * branch.rank + rank;
    float sum = 0.0f;
    for (int range = 0; range < branch.k_shares; ++range)
      sum += load_written(from + static_cast<int64_t>(range) * args.tokens * branch.rank);
    ranks[i] = branch.dtype == kStoredI8 ? sum * load(branch.a_scales + rank) : sum;
  }
}

// Adds the block's range of ranks to the first part of every token in its tile of sums, [column][kRows], one thread a
// row. `ranks`: room for kBranchRanks of every token.
template <int kRows>
LUTRA_DEVICE void add_branch(const DecodeArguments& args, float* tile, float* ranks, int64_t row, int split) {
  const BranchArguments& branch = args.branch;
  const int thread = thread_index();
  const bool owns = thread < kRows && row < args.rows;
  const int end = branch.rank * (split + 1) / args.splits;
  take_shares(args, reinterpret_cast<uint32_t*>(ranks), branch.shares + 1);
  if (thread == 0)
    while (look(args.counters + kSharesDone) < static_cast<uint32_t>(branch.shares)) pause_spin();
  sync_block();
  after_look();
  for (int first = branch.rank * split / args.splits; first < end; first += kBranchRanks) {
    const int count = end - first < kBranchRanks ? end - first : kBranchRanks;
    fetch_rank_sums(args, ranks, first, count);
    sync_block();
    for (int token = 0; owns && token < args.tokens; token += kBranchTokens) {
      float sums[kBranchTokens] = {};
      for (int i = 0; i < count; ++i) {
        const float b = stored_float(branch.b, row * branch.rank + first + i, branch.dtype);
        LUTRA_UNROLL
        for (int t = 0; t < kBranchTokens; ++t)
          if (token + t < args.tokens) sums[t] = multiply_add(b, ranks[(token + t) * count + i], sums[t]);
      }
      const float scale = branch.dtype == kStoredI8 ? load(branch.b_scales + row) : 1.0f;
      LUTRA_UNROLL
      for (int t = 0; t < kBranchTokens; ++t)
        if (token + t < args.tokens) tile[(token + t) * args.parts * kRows + thread] += scale * sums[t];
    }
    sync_block();
  }
}

}  // namespace lutra::cuda
