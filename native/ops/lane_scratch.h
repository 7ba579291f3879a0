// Scratch for the parts of a region: as many slots as lanes, each part takes a free one. Which slot a part gets never
// shows in its result; few slots stay in a core's cache where one buffer a part would not. Slots of no bytes are not
// taken: that writes a line which all lanes write, and while memory is busy every part would wait a microsecond for it.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/checked.h"
#include "ops/context.h"

namespace lutra {

class LaneScratch {
 public:
  static constexpr int kMaxLanes = 256;

  static size_t bytes(const Context& context, size_t slot_bytes) {
    return static_cast<size_t>(slots(context)) * aligned(slot_bytes);
  }

  // `memory` holds bytes(context, slot_bytes) bytes, 64-byte aligned.
  LaneScratch(const Context& context, void* memory, size_t slot_bytes)
      : memory_(static_cast<uint8_t*>(memory)), slot_bytes_(aligned(slot_bytes)), slots_(slots(context)) {}

  // A free slot, given back at the end of the part.
  class Slot {
   public:
    explicit Slot(LaneScratch& owner) : owner_(owner) {
      if (owner.slot_bytes_ == 0) return;
      while (owner.taken_[index_].exchange(true, std::memory_order_acquire)) index_ = (index_ + 1) % owner.slots_;
    }
    ~Slot() {
      if (owner_.slot_bytes_ > 0) owner_.taken_[index_].store(false, std::memory_order_release);
    }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

    template <typename T>
    T* as() const {
      return reinterpret_cast<T*>(owner_.memory_ + static_cast<size_t>(index_) * owner_.slot_bytes_);
    }

   private:
    LaneScratch& owner_;
    int index_ = 0;
  };

 private:
  static constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
  static int slots(const Context& context) { return context.lanes() < kMaxLanes ? context.lanes() : kMaxLanes; }

  uint8_t* memory_;
  size_t slot_bytes_;
  int slots_;
  std::atomic<bool> taken_[kMaxLanes] = {};
};

}  // namespace lutra
