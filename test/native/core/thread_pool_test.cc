#include "core/thread_pool.h"

#if defined(__linux__)
#include <sys/resource.h>
#endif

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include "../harness.h"

using lutra::CancelToken;
using lutra::PartLength;
using lutra::ThreadPool;

LUTRA_TEST(core, every_part_runs_once) {
  for (int lanes : {1, 2, 3, 8}) {
    ThreadPool pool(lanes);
    for (int64_t parts : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(parts));
      CHECK(pool.run(parts, 0, nullptr, [&](int64_t p) { hits[static_cast<size_t>(p)]++; }));
      for (auto& h : hits) CHECK(h.load() == 1);
    }
  }
}

LUTRA_TEST(core, a_nested_region_runs_inline) {
  ThreadPool pool(4);
  std::atomic<int> sum{0};
  CHECK(pool.run(8, 0, nullptr, [&](int64_t) { pool.run(5, 0, nullptr, [&](int64_t) { sum++; }); }));
  CHECK(sum.load() == 40);
}

LUTRA_TEST(core, callers_take_turns) {
  ThreadPool pool(3);
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  const int rounds = lutra::test::quick() ? 200 : 3000;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < rounds; ++i) {
        int64_t own[16] = {};
        pool.run(16, 0, nullptr, [&](int64_t p) { own[p] = p; });
        total += std::accumulate(own, own + 16, int64_t{0});
      }
    });
  for (std::thread& t : callers) t.join();
  CHECK(total.load() == int64_t{3} * rounds * 120);
}

// Sanitizers and emulators take their address space as they please.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
LUTRA_TEST(core, a_pool_without_threads_still_works) {
  rlimit before{};
  CHECK(getrlimit(RLIMIT_AS, &before) == 0);
  const rlimit none{1, before.rlim_max};  // no room for another stack
  CHECK(setrlimit(RLIMIT_AS, &none) == 0);
  {
    ThreadPool pool(64);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(pool.lanes() >= 1 && pool.lanes() <= 64);
    std::atomic<int> done{0};
    CHECK(pool.run(100, 0, nullptr, [&](int64_t) { done++; }));
    CHECK(done.load() == 100);
  }
}
#endif

LUTRA_TEST(core, cancel_leaves_parts_out) {
  ThreadPool pool(2);
  CancelToken token;
  std::atomic<int> done{0};
  CHECK(!pool.run(1000, 0, &token, [&](int64_t) {
    if (++done == 10) token.cancel();
  }));
  CHECK(done.load() < 1000);
}

// Parts of a region that other lanes than the caller's computed, after these had the time to fall asleep.
static int parts_of_others(ThreadPool& pool, int64_t parts, std::chrono::microseconds each,
                           PartLength length = PartLength::kUnknown) {
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::atomic<int> others{0};
  const std::thread::id caller = std::this_thread::get_id();
  CHECK(pool.run(
      parts, 0, nullptr,
      [&](int64_t) {
        if (std::this_thread::get_id() != caller) others++;
        if (each.count() > 0) std::this_thread::sleep_for(each);
      },
      length));
  return others.load();
}

// Machines stall: what is asked is whether it ever, and whether it never happens.
LUTRA_TEST(core, only_long_regions_wake_lanes) {
  ThreadPool pool(2);
  bool alone = false;
  bool helped = false;
  for (int i = 0; i < 50 && !(alone && helped); ++i) {
    alone = alone || parts_of_others(pool, 8, std::chrono::microseconds(0)) == 0;
    helped = helped || parts_of_others(pool, 8, std::chrono::microseconds(1000)) > 0;
  }
  CHECK(alone);
  CHECK(helped);
}

// Parts of `regions` regions, each of 8 parts of 10 us of work, that other lanes than the caller's computed, after
// these had the time to fall asleep.
static int parts_of_others_in_stream(ThreadPool& pool, int regions, std::chrono::microseconds apart) {
  using Clock = std::chrono::steady_clock;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::atomic<int> others{0};
  const std::thread::id caller = std::this_thread::get_id();
  for (int i = 0; i < regions; ++i) {
    CHECK(pool.run(8, 0, nullptr, [&](int64_t) {
      if (std::this_thread::get_id() != caller) others++;
      for (const Clock::time_point end = Clock::now() + std::chrono::microseconds(10); Clock::now() < end;) continue;
    }));
    if (apart.count() > 0) std::this_thread::sleep_for(apart);
  }
  return others.load();
}

// Whether `regions` regions one right after the other, each shorter than what is worth waking for, make the next one
// wake a lane after its first part: its second part gives a lane that was woken the time to come and take the third.
static bool wakes_after_stream(ThreadPool& pool, int regions) {
  using Clock = std::chrono::steady_clock;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto work = [] {
    for (const Clock::time_point end = Clock::now() + std::chrono::microseconds(10); Clock::now() < end;) continue;
  };
  const std::thread::id caller = std::this_thread::get_id();
  for (int i = 0; i < regions; ++i) CHECK(pool.run(8, 0, nullptr, [&](int64_t) { work(); }));
  std::atomic<bool> helped{false};
  CHECK(pool.run(3, 0, nullptr, [&](int64_t part) {
    work();
    if (std::this_thread::get_id() != caller) helped = true;
    for (int i = 0; part == 1 && i < 100 && !helped; ++i) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }));
  return helped;
}

// A machine that is busy may keep lanes from falling asleep, or break a stream; not every time, and not most of the
// time.
LUTRA_TEST(core, a_stream_of_short_regions_wakes_lanes) {
  ThreadPool pool(2);
  constexpr int kTries = 21;
  int after_stream = 0;
  int alone = 0;
  for (int i = 0; i < kTries; ++i) {
    after_stream += wakes_after_stream(pool, 3);
    alone += wakes_after_stream(pool, 0);
  }
  CHECK(after_stream > kTries * 2 / 3);
  CHECK(alone < kTries);
}

// Another caller's regions come between those of one whose long regions follow each other.
LUTRA_TEST(core, a_caller_without_pause_gives_way) {
  ThreadPool pool(2);
  constexpr int kRegions = 200;
  std::atomic<bool> begun{false};
  std::atomic<int> left{kRegions};
  int left_after_turn = 0;
  std::thread other([&] {
    while (!begun) std::this_thread::yield();
    for (int turn = 0; turn < 3; ++turn) CHECK(pool.run(2, 0, nullptr, [](int64_t) {}));
    left_after_turn = left;
  });
  for (; left > 0; --left)
    CHECK(pool.run(2, 0, nullptr, [&](int64_t) {
      begun = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }));
  other.join();
  CHECK(left_after_turn > kRegions * 3 / 4);
}

LUTRA_TEST(core, short_regions_far_apart_wake_nobody) {
  ThreadPool pool(2);
  bool alone = false;
  for (int i = 0; i < 200 && !alone; ++i)
    alone = parts_of_others_in_stream(pool, 5, std::chrono::microseconds(1000)) == 0;
  CHECK(alone);
}

// Two parts on two lanes: after the first there is nothing left that another lane could take.
LUTRA_TEST(core, long_parts_wake_lanes_before_the_first) {
  ThreadPool pool(2);
  bool helped = false;
  for (int i = 0; i < 50 && !helped; ++i)
    helped = parts_of_others(pool, 2, std::chrono::microseconds(1000), PartLength::kLong) > 0;
  CHECK(helped);
}

LUTRA_TEST(core, lanes_wake_after_sleep) {
  ThreadPool pool(2);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int> done{0};
    CHECK(pool.run(4, 0, nullptr, [&](int64_t) { done++; }));
    CHECK(done.load() == 4);
  }
}
