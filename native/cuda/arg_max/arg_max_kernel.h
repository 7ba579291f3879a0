// The largest number of each row: blocks take slices of the row, the last to come joins what they found.
#pragma once

#include "cuda/abi.h"
#include "cuda/simt/last_block.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct ArgMaxArguments {
  const float* x = nullptr;  // [rows, cols]
  int32_t* index = nullptr;
  float* value = nullptr;
  uint32_t* counters = nullptr;  // [rows]
  float* partials = nullptr;     // [rows][blocks][3]: value, index as bits, 1 where there was a NaN
  int32_t cols = 0;
  int32_t blocks = 1;  // of a row
};

struct ArgMaxKernel {
  using Arguments = ArgMaxArguments;
  static constexpr int kThreads = 256;
  static constexpr int kPartial = 3;
  static constexpr int kSharedBytes = (kThreads * kPartial + 1) * 4;

  // Slices of 4096 numbers, and 64 of them at most.
  static constexpr int blocks(int64_t cols) {
    const int64_t slices = (cols + 4095) / 4096;
    return static_cast<int>(slices < 64 ? slices : 64);
  }

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t* shared) {
    const int row = block_index() / args.blocks;
    const int block = block_index() % args.blocks;
    const float* const x = args.x + static_cast<int64_t>(row) * args.cols;
    Found found;
    for (int64_t i = static_cast<int64_t>(block) * kThreads + thread_index(); i < args.cols;
         i += static_cast<int64_t>(args.blocks) * kThreads)
      found.take(load(x + i), static_cast<int32_t>(i));
    float* const table = reinterpret_cast<float*>(shared);
    found = best_of_block(found, table);
    float* const partials = args.partials + static_cast<int64_t>(row) * args.blocks * kPartial;
    if (thread_index() == 0) found.store(partials + block * kPartial);
    uint32_t* const flag = reinterpret_cast<uint32_t*>(table + kThreads * kPartial);
    if (!comes_last(args.counters + row, static_cast<uint32_t>(args.blocks), flag) || thread_index() != 0) return;
    Found all;
    for (int b = 0; b < args.blocks; ++b) all.join(Found::written(partials + b * kPartial));
    const float first = load(x);
    args.index[row] = first == first && all.index >= 0 ? all.index : 0;
    args.value[row] = all.nan ? float_of(0x7fc00000u) : all.value;
  }

 private:
  struct Found {
    float value = float_of(0xff800000u);
    int32_t index = -1;
    bool nan = false;

    LUTRA_DEVICE void take(float other, int32_t at) {
      if (other != other) nan = true;
      if (other > value || (other == value && (index < 0 || at < index))) {
        value = other;
        index = at;
      }
    }
    LUTRA_DEVICE void join(const Found& other) {
      nan = nan || other.nan;
      if (other.index >= 0) take(other.value, other.index);
    }
    LUTRA_DEVICE void store(float* to) const {
      to[0] = value;
      to[1] = float_of(static_cast<uint32_t>(index));
      to[2] = nan ? 1.0f : 0.0f;
    }
    LUTRA_DEVICE static Found written(const float* from) {
      Found found;
      found.value = load_written(from);
      found.index = static_cast<int32_t>(bits_of(load_written(from + 1)));
      found.nan = load_written(from + 2) != 0.0f;
      return found;
    }
  };

  // In thread 0: of all threads.
  LUTRA_DEVICE static Found best_of_block(Found mine, float* table) {
    mine.store(table + thread_index() * kPartial);
    for (int half = kThreads / 2; half > 0; half /= 2) {
      sync_block();
      if (thread_index() >= half) continue;
      const float* const other = table + (thread_index() + half) * kPartial;
      Found theirs;
      theirs.value = other[0];
      theirs.index = static_cast<int32_t>(bits_of(other[1]));
      theirs.nan = other[2] != 0.0f;
      mine.join(theirs);
      mine.store(table + thread_index() * kPartial);
    }
    return mine;
  }
};

}  // namespace lutra::cuda
