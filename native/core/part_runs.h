// Which lane takes which part of a region.
//
// Every lane begins with a run of parts of its own. Parts that follow each other mostly do so in memory, too: what is
// fetched ahead at the end of one is the beginning of the next, and the same lane of the next call finds in its caches
// what it left there. A lane that is done takes the second half of what another has left.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/checked.h"

namespace lutra {

class PartRuns {
 public:
  static constexpr int64_t kMostParts = UINT32_MAX;

  PartRuns() = default;
  explicit PartRuns(int lanes) : lanes_(static_cast<size_t>(lanes)) {}

  // Parts [0, parts) for the first `lanes` lanes. Nobody claims meanwhile.
  void share(int64_t parts, int lanes) {
    taking_ = lanes;
    for (int lane = 0; lane < lanes; ++lane)
      run_of(lane).store(
          {narrowed<uint32_t>(ceil_div(parts * lane, lanes)), narrowed<uint32_t>(ceil_div(parts * (lane + 1), lanes))});
  }

  // A part that is this lane's from now on; -1 where none is left.
  int64_t claim(int lane) {
    std::atomic<Run>& own = run_of(lane);
    for (Run run = own.load(); run.parts() > 0;)
      if (own.compare_exchange_weak(run, {run.first + 1, run.last})) return run.first;
    for (int i = 1; i < taking_; ++i) {
      std::atomic<Run>& other = run_of((lane + i) % taking_);
      // No run returns to what it was: its first part was claimed in between.
      for (Run run = other.load(); run.parts() > 0;) {
        const uint32_t middle = run.first + (run.last - run.first) / 2;
        if (!other.compare_exchange_weak(run, {run.first, middle})) continue;
        own.store({middle + 1, run.last});
        return middle;
      }
    }
    return -1;
  }

  // Parts nobody has claimed; those on their way from one lane to another may be missing.
  int64_t left() {
    int64_t parts = 0;
    for (int lane = 0; lane < taking_; ++lane) parts += run_of(lane).load().parts();
    return parts;
  }

 private:
  // Parts [first, last), in one word: both ends change together. Aligned as such, or Clang calls a library for them.
  struct alignas(8) Run {
    uint32_t first;
    uint32_t last;
    int64_t parts() const { return first < last ? last - first : 0; }
  };
  static_assert(std::atomic<Run>::is_always_lock_free);

  struct alignas(64) Lane {
    std::atomic<Run> run{Run{0, 0}};
  };

  std::atomic<Run>& run_of(int lane) { return lanes_[static_cast<size_t>(lane)].run; }

  std::vector<Lane> lanes_;
  int taking_ = 0;
};

}  // namespace lutra
