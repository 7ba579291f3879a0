// A flag that another thread raises to stop a running call. Polled once per parallel region.
#pragma once

#include <atomic>

namespace lutra {

class CancelToken {
 public:
  void cancel() { stop_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return stop_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> stop_{false};
};

}  // namespace lutra
