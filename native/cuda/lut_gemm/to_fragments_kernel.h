// Codes from the order of packing/layout.h to that of fragments.h on the device, one thread a word: the host would take
// minutes for a large model.
#pragma once

#include "cuda/abi.h"
#include "cuda/lut_gemm/fragments.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct ToFragmentsKernel {
  using Arguments = LutraCudaFragments;
  static constexpr int kThreads = 256;

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t*) {
    const int words = unit_words(args.bits);
    const int64_t units = (args.cols + kUnitCols - 1) / kUnitCols;
    const int64_t padded = (args.rows + kTileRows - 1) / kTileRows * kTileRows;
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    if (i >= padded / kTileRows * units * words) return;
    const int64_t unit = i / words % units;
    const int64_t first_row = i / words / units * kTileRows;
    // Which lane's which word this is: unit_word_at, backwards.
    const int within = static_cast<int>(i % words);
    const int rest = unit_lane_words(args.bits) - 4;
    const int lane = within < 4 * kWarp ? within / 4 : (within - 4 * kWarp) / rest;
    const int word = within < 4 * kWarp ? within % 4 : 4 + (within - 4 * kWarp) % rest;
    uint32_t value = 0;
    for (int bit = 0; bit < 16; ++bit) {
      int q = 0;
      int plane = 0;
      pair_at(args.bits, word, bit, &q, &plane);
      const int64_t row = first_row + q % 2 * 8 + lane / 4;
      const int64_t col = unit * kUnitCols + q / 4 * kStepCols + lane % 4 * 4 + q % 4 / 2 * 2;
      if (col / PackedLayout::kChunkCols >= (args.cols + PackedLayout::kChunkCols - 1) / PackedLayout::kChunkCols)
        continue;
      const uint32_t two =
          load(args.tiles + tile_word_at(args, padded, row, col, plane)) >> (col % PackedLayout::kChunkCols);
      value |= (two & 1u) << bit | (two >> 1 & 1u) << (bit + 16);
    }
    args.fragments[i] = value;
  }

 private:
  // fragment_place, backwards: the pair of a lane, and the plane of its codes, that bit `bit` of word `word` holds.
  LUTRA_DEVICE static void pair_at(int bits, int word, int bit, int* q, int* plane) {
    if (bits != 3) {
      *q = (word * 16 + bit) / bits;
      *plane = bit % bits;
    } else if (bit == 15) {
      *q = word / 3 * 16 + 15;
      *plane = word % 3;
    } else {
      *q = word / 3 * 16 + word % 3 * 5 + bit / 3;
      *plane = bit % 3;
    }
  }

  LUTRA_DEVICE static int64_t tile_word_at(const Arguments& args, int64_t padded, int64_t row, int64_t col, int plane) {
    const int64_t chunks = (args.cols + PackedLayout::kChunkCols - 1) / PackedLayout::kChunkCols;
    const int64_t first = row / PackedLayout::kTileRows * PackedLayout::kTileRows;
    const int64_t stored = padded - first < PackedLayout::kTileRows ? padded - first : PackedLayout::kTileRows;
    return first * chunks * args.bits + (col / PackedLayout::kChunkCols * args.bits + plane) * stored + (row - first);
  }
};

}  // namespace lutra::cuda
