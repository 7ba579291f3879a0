// What every operator is handed besides its operands: lanes, cancellation and scratch memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/aligned_buffer.h"
#include "core/cancel.h"
#include "core/thread_pool.h"

namespace lutra {

// Multiply-adds of a part at most, some milliseconds: after each a call may be cancelled.
constexpr int64_t kPartProducts = int64_t{1} << 28;
// And of a region for each lane: after each other callers have their turns. Lanes that are done wait for the last of
// its parts, which with fewer parts costs more than it should.
constexpr int64_t kRegionProducts = 4 * kPartProducts;
// Sleeping lanes are woken for parts of so many before one is measured.
constexpr int64_t kLongPartProducts = int64_t{1} << 22;

constexpr PartLength part_length(int64_t products) {
  return products < kLongPartProducts ? PartLength::kUnknown : PartLength::kLong;
}

struct Context {
  ThreadPool* pool = nullptr;
  const CancelToken* cancel = nullptr;  // may be null
  int threads = 0;                      // lanes to use at most; 0 means all of the pool

  // Scratch that lives until the next call of scratch(): grows, never shrinks. Null when memory is out.
  // An operator asks once and carves what it needs; it must not call another operator that asks while it holds it.
  void* scratch(size_t bytes) {
    if (!scratch_ || scratch_.bytes() < bytes) scratch_ = AlignedBuffer(bytes);
    return scratch_.bytes() >= bytes ? scratch_.as<void>() : nullptr;
  }

  int lanes() const { return threads > 0 && threads < pool->lanes() ? threads : pool->lanes(); }

  template <typename Body>
  bool parallel(int64_t parts, Body&& body) {
    return parallel(parts, PartLength::kUnknown, body);
  }
  template <typename Body>
  bool parallel(int64_t parts, PartLength length, Body&& body) {
    return pool->run(parts, threads, cancel, body, length);
  }

  // Parts of so many multiply-adds each, in regions of kRegionProducts a lane.
  template <typename Body>
  bool parallel_in_turns(int64_t parts, int64_t products, Body&& body) {
    const int64_t together = lanes() * std::max<int64_t>(1, kRegionProducts / std::max<int64_t>(1, products));
    for (int64_t begin = 0; begin < parts; begin += together) {
      const auto part_from_begin = [&](int64_t part) { body(begin + part); };
      if (!parallel(std::min(together, parts - begin), part_length(products), part_from_begin)) return false;
    }
    return true;
  }

 private:
  AlignedBuffer scratch_;
};

}  // namespace lutra
