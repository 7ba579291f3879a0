#include "core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/part_runs.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lutra {

namespace {

// How long an idle lane watches for the next region before it sleeps.
constexpr std::chrono::microseconds kSpin{50};
// What regions must take their caller before they wake sleeping lanes: these come some 50 us after a system call.
constexpr std::chrono::microseconds kWorthWaking{100};
// A region of so long gives way to callers that wait: it costs two wake-ups.
constexpr std::chrono::microseconds kLongTurn{500};

// Set while this thread works on a part: a region started there runs inline.
thread_local bool inside_region = false;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whole processors of the cgroup v2 quota, or 0 where there is none.
int cgroup_lanes() {
#if defined(__linux__)
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re");
  if (!file) return 0;
  long long quota = 0;
  long long period = 0;
  const int fields = std::fscanf(file, "%lld %lld", &quota, &period);
  std::fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return 0;
  const long long lanes = (quota + period - 1) / period;
  return lanes > 4096 ? 0 : static_cast<int>(lanes);
#else
  return 0;
#endif
}

int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

struct ThreadPool::Shared {
  using Clock = std::chrono::steady_clock;

  // The region under way. Written under `mutex` while no lane is inside, read by lanes after they saw `generation`.
  PartFunction function = nullptr;
  void* context = nullptr;
  const CancelToken* cancel = nullptr;
  PartRuns runs;
  std::atomic<int> seats{0};   // helping lanes this region still admits
  std::atomic<int> inside{0};  // helping lanes at work on this region
  std::atomic<uint64_t> generation{0};

  std::mutex region;               // one region at a time
  std::atomic<int> waiting{0};     // callers at the mutex
  std::atomic<uint64_t> turns{0};  // regions begun
  // What callers worked without sleeping lanes in regions that followed each other within kSpin, and when the last of
  // them ended. Under `region`.
  Clock::duration spent{0};
  Clock::time_point ended;

  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> asleep{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> helpers;

  void work(int lane) {
    inside_region = true;
    for (;;) {
      if (cancel && cancel->cancelled()) break;
      const int64_t part = runs.claim(lane);
      if (part < 0) break;
      function(context, part);
    }
    inside_region = false;
  }

  void wake_lanes() {
    wake.notify_all();
    spent = Clock::duration::zero();
  }

  // The caller's share. Lanes that sleep are woken at once where parts are long; else once the parts that are left, at
  // the pace of those done, and what the regions right before this one took come to more than kWorthWaking. In a
  // stream of short regions, lanes that come too late for this one are there for the next.
  void lead(PartLength length) {
    bool sleeping = asleep.load() > 0;
    if (sleeping && length == PartLength::kLong) {
      wake_lanes();
      sleeping = false;
    }
    const Clock::time_point start = sleeping ? Clock::now() : Clock::time_point();
    if (sleeping && start - ended > kSpin) spent = Clock::duration::zero();
    inside_region = true;
    for (int64_t done = 1;; ++done) {
      if (cancel && cancel->cancelled()) break;
      const int64_t part = runs.claim(0);
      if (part < 0) break;
      function(context, part);
      if (sleeping && (Clock::now() - start) * runs.left() > (kWorthWaking - spent) * done) {
        wake_lanes();
        sleeping = false;
      }
    }
    inside_region = false;
    if (!sleeping) return;
    ended = Clock::now();
    spent += ended - start;
  }

  // A caller whose regions follow each other would take the mutex again before one that waits for it has woken: after
  // a long region it lets that one begin. Short ones do not pay for this.
  template <typename Run>
  void take_turn(Run&& run) {
    waiting.fetch_add(1);
    std::unique_lock lock(region);
    waiting.fetch_sub(1);
    const uint64_t turn = turns.fetch_add(1) + 1;
    turns.notify_all();
    const bool contended = waiting.load() > 0;
    const Clock::time_point start = contended ? Clock::now() : Clock::time_point();
    run();
    if (!contended || Clock::now() - start < kLongTurn || waiting.load() == 0) return;
    lock.unlock();
    turns.wait(turn);
  }

  // Waits until `generation` moves on from `seen`. Returns false when the pool is stopping.
  bool await(uint64_t seen) {
    const auto until = std::chrono::steady_clock::now() + kSpin;
    while (generation.load(std::memory_order_acquire) == seen && !stop.load(std::memory_order_acquire)) {
      if (std::chrono::steady_clock::now() < until) {
        relax();
        continue;
      }
      std::unique_lock lock(mutex);
      asleep.fetch_add(1);
      wake.wait(lock, [&] { return generation.load() != seen || stop.load(); });
      asleep.fetch_sub(1);
    }
    return !stop.load(std::memory_order_acquire);
  }

  void help() {
    uint64_t seen = 0;
    while (await(seen)) {
      // Announce before reading the region: a caller that publishes waits for `inside` to reach zero first.
      inside.fetch_add(1);
      seen = generation.load();
      const int seat = seats.fetch_sub(1);
      if (seat > 0) work(seat);
      inside.fetch_sub(1);
    }
  }
};

ThreadPool::ThreadPool(int lanes) : shared_(std::make_unique<Shared>()) {
  // Where the system refuses a thread or its memory, the pool has the lanes it got. lanes() tells; bits stay the same.
  try {
    shared_->runs = PartRuns(lanes);
    for (int i = 1; i < lanes; ++i) shared_->helpers.emplace_back([this] { shared_->help(); });
  } catch (const std::exception&) {
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->stop.store(true);
  }
  shared_->wake.notify_all();
  for (std::thread& helper : shared_->helpers) helper.join();
}

int ThreadPool::lanes() const { return static_cast<int>(shared_->helpers.size()) + 1; }

int ThreadPool::default_lanes() {
  if (const char* text = std::getenv("LUTRA_THREADS")) {
    const int wanted = std::atoi(text);
    if (wanted >= 1 && wanted <= 1024) return wanted;
  }
  int lanes = available_processors();
  const int quota = cgroup_lanes();
  if (quota > 0 && quota < lanes) lanes = quota;
  return lanes < 1 ? 1 : lanes;
}

std::shared_ptr<ThreadPool> ThreadPool::acquire() {
  static std::mutex mutex;
  static std::weak_ptr<ThreadPool> current;
  std::lock_guard lock(mutex);
  if (std::shared_ptr<ThreadPool> pool = current.lock()) return pool;
  auto pool = std::make_shared<ThreadPool>(default_lanes());
  current = pool;
  return pool;
}

bool ThreadPool::run_erased(int64_t parts, int max_lanes, const CancelToken* cancel, PartLength length,
                            PartFunction function, void* context) {
  const bool alone = parts <= 1 || parts > PartRuns::kMostParts || lanes() == 1 || max_lanes == 1 || inside_region;
  if (alone) {
    for (int64_t part = 0; part < parts; ++part) {
      if (cancel && cancel->cancelled()) return false;
      function(context, part);
    }
    return !(cancel && cancel->cancelled());
  }

  Shared& s = *shared_;
  s.take_turn([&] {
    // Lanes that came late for the last region have left before the new one is written.
    s.seats.store(0);
    while (s.inside.load() != 0) relax();
    s.function = function;
    s.context = context;
    s.cancel = cancel;
    const int wanted = max_lanes > 0 && max_lanes < lanes() ? max_lanes : lanes();
    const int useful = parts < wanted ? static_cast<int>(parts) : wanted;
    s.runs.share(parts, useful);
    s.seats.store(useful - 1);
    {
      std::lock_guard lock(s.mutex);
      s.generation.fetch_add(1);
    }
    s.lead(length);
    // Nobody may start a part after this: the body lives on the caller's stack.
    s.seats.store(0);
    while (s.inside.load() != 0) relax();
  });
  return !(cancel && cancel->cancelled());
}

}  // namespace lutra
