// One pool of lanes for the whole process, shared by every environment that holds a reference.
//
// A parallel region is a number of parts and a function that computes one part. Which lane computes which part
// is not fixed (core/part_runs.h), so a part must not depend on its lane, and results are the same for every number
// of lanes. The calling thread is always one of the lanes; where the others sleep and the region is short and alone,
// the only one. Regions of different callers run one after the other, and a long one is followed by another caller's
// where one waits; a region started inside a part runs inline on that lane.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "core/cancel.h"

namespace lutra {

// What the caller of a region knows of its parts before it has measured one.
enum class PartLength : uint8_t {
  kUnknown,
  kLong,  // a part or two are worth a lane's waking
};

class ThreadPool {
 public:
  // The process-wide pool, created on first use and joined when the last reference goes.
  // Lanes: LUTRA_THREADS, else the processors that affinity and the cgroup quota leave.
  static std::shared_ptr<ThreadPool> acquire();
  static int default_lanes();

  // At most so many: fewer where the system gives no more threads.
  explicit ThreadPool(int lanes);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int lanes() const;

  // Runs body(part) for every part in [0, parts) on at most max_lanes lanes (0: all).
  // Returns false if `cancel` was raised; parts not yet started are then left out.
  template <typename Body>
  bool run(int64_t parts, int max_lanes, const CancelToken* cancel, Body&& body,
           PartLength length = PartLength::kUnknown) {
    using Plain = std::remove_reference_t<Body>;
    return run_erased(
        parts, max_lanes, cancel, length, [](void* context, int64_t part) { (*static_cast<Plain*>(context))(part); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using PartFunction = void (*)(void* context, int64_t part);
  bool run_erased(int64_t parts, int max_lanes, const CancelToken* cancel, PartLength length, PartFunction function,
                  void* context);

  struct Shared;
  std::unique_ptr<Shared> shared_;
};

}  // namespace lutra
