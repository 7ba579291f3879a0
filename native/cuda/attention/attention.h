// How attention is cut (attention_kernel.h does it).
//
// Keys are cut into ranges of a fixed length, counted from position 0 and fixed by the capacity of the cache, so that a
// row's sums are the same whether it is computed alone or with others, at any position. A block takes one range for
// some rows of one key-value head; "row" i of that head is query i / group of the head's i % group-th query head, so
// that the heads that share keys read them together. Ranges that no row of a block sees end at once.
#pragma once

#include <cstdint>

#include "core/checked.h"
#include "cuda/abi.h"

namespace lutra::cuda {

constexpr int kAttentionThreads = 128;
constexpr int kTileKeys = 64;  // that a block scores at a time
constexpr int kMaxHeadDim = 8 * kAttentionThreads;

struct AttentionArguments {
  LutraCudaAttention op = {};
  int32_t ranges = 1;
  int32_t range_keys = kTileKeys;
  uint32_t* counters = nullptr;  // [kv_heads][row blocks], zero before and after a launch
  float* partials = nullptr;     // [kv_heads][rows, rounded up][ranges][pitch + 2]: sums, largest score, sum of weights
};

// A head's numbers in shared memory and in partials: rounded up to the 8 that a thread takes.
constexpr int attention_pitch(int head_dim) { return (head_dim + 7) / 8 * 8; }

inline int64_t attention_range_keys(int64_t capacity) {
  constexpr int64_t kShortest = 256;
  constexpr int64_t kMostRanges = 64;
  const int64_t keys = round_up(ceil_div(capacity, kMostRanges), kTileKeys);
  return keys < kShortest ? kShortest : keys;
}

// Rows that a block takes: they read the same keys, and each has sums in registers.
inline int attention_block_rows(const LutraCudaAttention& op) {
  const int64_t rows = int64_t{op.tokens} * (op.heads / op.kv_heads);
  return rows == 1 ? 1 : rows <= 4 ? 4 : 8;
}
inline int64_t attention_row_blocks(const LutraCudaAttention& op) {
  return ceil_div(int64_t{op.tokens} * (op.heads / op.kv_heads), attention_block_rows(op));
}

inline int64_t attention_counters(const LutraCudaAttention& op) { return op.kv_heads * attention_row_blocks(op); }
inline int64_t attention_partials(const LutraCudaAttention& op) {
  return attention_counters(op) * attention_block_rows(op) * ceil_div(op.capacity, attention_range_keys(op.capacity)) *
         (attention_pitch(op.head_dim) + 2);
}

// Shared memory in floats: q, scores, three numbers a row, sums of all threads.
constexpr int attention_shared_bytes(int head_dim, int rows) {
  return (rows * (attention_pitch(head_dim) + kTileKeys + 3) + kAttentionThreads * 8) * 4;
}
static_assert(attention_shared_bytes(kMaxHeadDim, 8) <= 48 * 1024);  // what a block may have without asking

}  // namespace lutra::cuda
