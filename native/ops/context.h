// What every operator is handed besides its operands: lanes, cancellation and scratch memory.
#pragma once

#include <cstddef>

#include "core/aligned_buffer.h"
#include "core/cancel.h"
#include "core/thread_pool.h"

namespace lutra {

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

 private:
  AlignedBuffer scratch_;
};

}  // namespace lutra
