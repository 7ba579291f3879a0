// Which part of the product a block of the prefill kernel has, and its way from a block's totals to y.
#pragma once

#include "cuda/lut_gemm/decode_join.h"
#include "cuda/lut_gemm/prefill.h"

namespace lutra::cuda {

struct PrefillPlace {
  int row_block;
  int column_block;
  int split;
};

// Blocks go through kPrefillRowGroup row blocks, then to the next column block; ranges of units come one after the
// other.
LUTRA_DEVICE PrefillPlace prefill_place(const PrefillArguments& args, int block) {
  const int cells = args.row_blocks * args.column_blocks;
  const int cell = block % cells;
  const int first = cell / (kPrefillRowGroup * args.column_blocks) * kPrefillRowGroup;
  const int left = args.row_blocks - first;
  const int group = left < kPrefillRowGroup ? left : kPrefillRowGroup;
  const int of_group = cell - first * args.column_blocks;
  return {first + of_group % group, of_group / group, block / cells};
}

// Totals lie at the start of shared memory, [column][kTotalsPitch]. One thread a row, two a row of many tokens.
LUTRA_DEVICE void join_prefill(const PrefillArguments& args, uint8_t* shared, const PrefillPlace& place) {
  const DecodeArguments& product = args.product;
  const float* const totals = reinterpret_cast<const float*>(shared);
  constexpr int kStride = kPrefillThreads / kPrefillRows;
  const int of_block = thread_index() % kPrefillRows;
  const int begin = thread_index() / kPrefillRows;
  const int64_t row = static_cast<int64_t>(place.row_block) * kPrefillRows + of_block;
  const int first_token = place.column_block * args.block_tokens;
  const int left = product.tokens - first_token;
  const int tokens = left < args.block_tokens ? left : args.block_tokens;
  const bool owns = row < product.rows;
  for (int t = begin; owns && t < tokens; t += kStride) {
    const int64_t at = (first_token + t) * product.rows + row;
    float sum = 0.0f;
    for (int part = 0; part < product.parts; ++part)
      sum += totals[(t * product.parts + part) * kTotalsPitch + of_block];
    if (product.splits == 1)
      store_float(product.y, at, product.y_dtype, sum);
    else
      product.partials[place.split * product.tokens * product.rows + at] = sum;
  }
  if (product.splits == 1) return;
  uint32_t* const counter = product.counters + place.row_block * args.column_blocks + place.column_block;
  if (!comes_last(counter, product.splits, reinterpret_cast<uint32_t*>(shared))) return;
  for (int t = begin; owns && t < tokens; t += kStride) {
    const int64_t at = (first_token + t) * product.rows + row;
    float sum = 0.0f;
    for (int s = 0; s < product.splits; ++s)
      sum += load_written(product.partials + s * product.tokens * product.rows + at);
    store_float(product.y, at, product.y_dtype, sum);
  }
}

}  // namespace lutra::cuda
