// One launch of the decode kernel: y = W x for 1 to 16 tokens, and y = W x + B (A x) where there is a sub-branch.
//
// Activations become columns of the matrix unit: column = token * parts + part. f16 and bf16 are one part each, exact;
// f32 is cut into bf16 parts of 8 bits (1: fast, 2: accurate, 3: exact), whose products are exact and whose sums are
// fp32. So no value overflows, and the mode costs nothing while tokens * parts <= 8.
//
// A block of 8 warps owns 128 or 256 rows and one of `splits` ranges of units of 128 columns. Sums of a range meet in
// `partials`, and the block of a row range that comes last adds them in the order of the ranges: bits depend neither on
// the order of blocks nor on the number of tokens.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "packing/layout.h"

namespace lutra::cuda {

constexpr int kDecodeWarps = 8;
constexpr int kDecodeThreads = kDecodeWarps * 32;
constexpr int kMaxDecodeTokens = 16;
constexpr int kMaxColumnTiles = 4;  // of 8 columns: tokens * parts <= 32
constexpr int kFoldUnits = 2;       // sums of the matrix unit are scaled at each group's end and every 256 columns
constexpr int kRankBlock = 8;       // rows of A that a block takes together, one a warp

// Types of stored numbers; the numbers of core/tensor_view.h.
enum Stored : int32_t { kStoredF32 = 0, kStoredF16 = 1, kStoredBF16 = 2, kStoredU8 = 4, kStoredI8 = 6 };

struct BranchArguments {
  int32_t rank = 0;         // 0: none
  int32_t dtype = 0;        // Stored: f16, bf16 or i8
  const void* a = nullptr;  // [rank, cols]
  const void* b = nullptr;  // [rows, rank]
  const float* a_scales = nullptr;
  const float* b_scales = nullptr;
  float* sums = nullptr;  // [shares of k][tokens][rank]
  int32_t k_shares = 0;   // A x is cut into ceil(rank / 8) * k_shares shares
  int32_t shares = 0;
};

struct DecodeArguments {
  const uint32_t* codes = nullptr;  // fragments.h
  const void* scales = nullptr;     // or alphas; packing/layout.h
  const void* offsets = nullptr;
  const void* x = nullptr;       // [tokens, cols]
  void* y = nullptr;             // [tokens, rows]
  float* partials = nullptr;     // [splits][tokens][rows], where splits > 1
  uint32_t* counters = nullptr;  // decode_counters() of them, zero before and after a launch
  int64_t rows = 0;
  int64_t cols = 0;
  int32_t units = 0;
  int32_t splits = 1;
  int32_t groups = 1;
  int32_t group_steps = 0;  // groupSize / 16; steps of a row where it is one group
  int32_t tokens = 1;
  int32_t parts = 1;
  int32_t x_dtype = 0;  // Stored: f32, f16 or bf16, as y_dtype
  int32_t y_dtype = 0;
  int32_t scale_dtype = 0;
  int32_t offset_kind = 0;   // OffsetKind
  int32_t offset_dtype = 0;  // where offset_kind is kReal
  BranchArguments branch;
};

// Places in `counters`.
enum DecodeCounter : int32_t { kSharesTaken, kSharesDone, kEnded, kFirstRowBlock };

// How a shape is cut on a device that holds `slots` blocks of 8 warps at once: a matter of the shape and the device
// alone.
struct DecodePlan {
  int32_t splits = 1;
  int32_t k_shares = 0;  // of A x
  int32_t shares = 0;
  int64_t counters = 0;         // u32
  int64_t partials_floats = 0;  // for 16 tokens
  int64_t branch_floats = 0;    // for 16 tokens
};
DecodePlan plan_decode(const PackedLayout& layout, int64_t rank, int slots);

// Tiles of 16 rows a warp: planes have sums of their own, which take the registers of a second tile.
constexpr int decode_row_tiles(bool planes) { return planes ? 1 : 2; }
// Units before the range `split` of a row's units.
constexpr int units_before(int units, int splits, int split) {
  return static_cast<int>(static_cast<int64_t>(units) * split / splits);
}
constexpr int decode_block_rows(int row_tiles) { return kDecodeWarps * row_tiles * 16; }
inline int64_t decode_row_blocks(int64_t rows, int row_tiles) { return ceil_div(rows, decode_block_rows(row_tiles)); }

// Columns of the matrix unit in tiles of 8: 1, 2 or 4.
constexpr int decode_column_tiles(int tokens, int parts) {
  const int tiles = (tokens * parts + 7) / 8;
  return tiles == 3 ? 4 : tiles;
}

// Units whose x a block holds in shared memory at a time, and that memory. x lies [column][k] with 32 bytes between
// columns, which keeps the 16 lanes of a load on banks of their own; sums of x lie behind it, [step][column] fp32.
constexpr int decode_chunk_units(int column_tiles) { return 16 / column_tiles; }
constexpr int decode_pitch(int column_tiles) { return decode_chunk_units(column_tiles) * 256 + 32; }
constexpr int decode_sums_at(int column_tiles) { return 8 * column_tiles * decode_pitch(column_tiles); }
constexpr int decode_shared_bytes(int column_tiles) {
  return decode_sums_at(column_tiles) + decode_chunk_units(column_tiles) * 8 * 8 * column_tiles * 4;
}

// What a launch is told of the weights, the sub-branch and the types, whatever the number of tokens.
Status product_arguments(const PackedLayout& layout, const SubBranch& branch, int splits, int tokens, Dtype x_dtype,
                         Dtype y_dtype, int parts, DecodeArguments* arguments);

// Fills everything of a launch but the memory: codes, scales, offsets, x, y, partials, counters, branch.a to .sums.
// `parts` as above; x and y f16, bf16 or f32.
Status decode_arguments(const PackedLayout& layout, const SubBranch& branch, const DecodePlan& plan, int tokens,
                        Dtype x_dtype, Dtype y_dtype, int parts, DecodeArguments* arguments);

}  // namespace lutra::cuda
