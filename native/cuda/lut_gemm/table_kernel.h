// LUT-GEMM's kernel as its paper and repository describe it, written anew to be measured against: for every 8
// activations a table of the 256 sums +-x0 +-x1 ... +-x7 in shared memory, fp16; a byte of a row's codes looks its sum
// up; sums of 64 columns are fp16, and are scaled and added to y with atomics, half2 at a time. One token.
//
// A block owns 2048 rows and 64 columns: 8 tables of 512 bytes. A thread takes two rows at a time, as one half2.
// Looking up costs a bank conflict nearly every time, which is what limits it (bench/cuda/NOTES.md).
#pragma once

#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct TableArguments {
  const uint32_t* codes = nullptr;   // [cols / 32][planes][rows], bit 1: +1, bit 0: -1
  const uint16_t* alphas = nullptr;  // [groups][planes][rows]
  const uint16_t* bias = nullptr;    // [groups][rows]
  const uint16_t* x = nullptr;
  uint32_t* y = nullptr;  // half2 [rows / 2], zero before
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group_size = 0;
  int32_t planes = 0;
};

constexpr int kTableThreads = 256;
constexpr int kTableRows = 2048;
constexpr int kTableCols = 64;
constexpr int kTables = kTableCols / 8;
constexpr int kTableShared = kTables * 256 * 2 + 16;

// Warp t makes table t: lane l fills entries l, l + 32, ..., each from the one without its highest bit.
LUTRA_DEVICE void build_table(const TableArguments& args, uint16_t* table, int64_t first) {
  const int lane = thread_index() % kWarp;
  const auto x = [&](int i) { return float_of_half(load(args.x + first + i)); };
  float sum = 0.0f;
  LUTRA_UNROLL
  for (int i = 0; i < 5; ++i) sum += (lane >> i & 1) ? x(i) : -x(i);
  LUTRA_UNROLL
  for (int high = 0; high < 8; ++high) {
    float entry = sum;
    LUTRA_UNROLL
    for (int i = 0; i < 3; ++i) entry += (high >> i & 1) ? x(5 + i) : -x(5 + i);
    table[high * 32 + lane] = static_cast<uint16_t>(half_of(entry));
  }
}

// Adds the four sums that one word of each of two rows looks up, to a half2.
LUTRA_DEVICE uint32_t look_up(const uint16_t* tables, Words2 words, uint32_t sums) {
  LUTRA_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = tables[i * 256 + (words.w[0] >> (8 * i) & 0xffu)];
    const uint32_t high = tables[i * 256 + (words.w[1] >> (8 * i) & 0xffu)];
    sums = add_half2(sums, low | high << 16);
  }
  return sums;
}

LUTRA_DEVICE void table_gemv(const TableArguments& args, uint8_t* shared) {
  uint16_t* const tables = reinterpret_cast<uint16_t*>(shared);
  const int64_t row_blocks = (args.rows + kTableRows - 1) / kTableRows;
  const int64_t first_col = block_index() / row_blocks * kTableCols;
  const int64_t first_row = block_index() % row_blocks * kTableRows;
  build_table(args, tables + thread_index() / kWarp * 256, first_col + thread_index() / kWarp * 8);
  sync_block();
  // The sum of the 64 activations, for the bias: entry 255 of each table adds all of its eight.
  float x_sum = 0.0f;
  LUTRA_UNROLL
  for (int t = 0; t < kTables; ++t) x_sum += float_of_half(tables[t * 256 + 255]);
  const int64_t group = first_col / args.group_size;
  for (int64_t row = first_row + thread_index() * 2; row < first_row + kTableRows && row < args.rows;
       row += kTableThreads * 2) {
    float sums[2];
    LUTRA_UNROLL
    for (int r = 0; r < 2; ++r) sums[r] = x_sum * float_of_half(load(args.bias + group * args.rows + row + r));
    for (int p = 0; p < args.planes; ++p) {
      const uint32_t* const at = args.codes + (first_col / 32 * args.planes + p) * args.rows + row;
      uint32_t both = look_up(tables, load_once2(at), 0);
      both = look_up(tables + 4 * 256, load_once2(at + args.planes * args.rows), both);
      LUTRA_UNROLL
      for (int r = 0; r < 2; ++r)
        sums[r] = multiply_add(float_of_half(load(args.alphas + (group * args.planes + p) * args.rows + row + r)),
                               float_of_half(both >> (16 * r) & 0xffffu), sums[r]);
    }
    atomic_add_half2(args.y + row / 2, half_of(sums[0]) | half_of(sums[1]) << 16);
  }
}

}  // namespace lutra::cuda
