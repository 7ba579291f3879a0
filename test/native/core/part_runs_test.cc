#include "core/part_runs.h"

#include <atomic>
#include <barrier>
#include <set>
#include <thread>
#include <vector>

#include "../harness.h"

using lutra::PartRuns;

// A run in order, then the later half of what the next lane has left.
LUTRA_TEST(core, a_lane_keeps_to_its_run_before_it_helps) {
  PartRuns runs(3);
  runs.share(12, 3);
  for (int64_t part : {0, 1, 2, 3}) CHECK(runs.claim(0) == part);
  CHECK(runs.claim(1) == 4);
  CHECK(runs.left() == 7);
  for (int64_t part : {6, 7, 5}) CHECK(runs.claim(0) == part);
  for (int64_t part : {8, 9, 10, 11}) CHECK(runs.claim(2) == part);
  for (int lane : {0, 1, 2}) CHECK(runs.claim(lane) == -1);
  CHECK(runs.left() == 0);
}

// Lanes that never come leave nothing behind, and none gets a part twice.
LUTRA_TEST(core, one_lane_claims_every_part) {
  for (int lanes : {1, 2, 7})
    for (int64_t parts : {1, 6, 100}) {
      PartRuns runs(lanes);
      runs.share(parts, lanes);
      std::set<int64_t> claimed;
      for (int64_t part; (part = runs.claim(lanes - 1)) >= 0;) CHECK(claimed.insert(part).second && part < parts);
      CHECK(static_cast<int64_t>(claimed.size()) == parts);
    }
}

LUTRA_TEST(core, lanes_that_help_each_other_claim_every_part_once) {
  constexpr int kLanes = 4;
  constexpr int64_t kParts = 24;
  const int rounds = lutra::test::quick() ? 200 : 2000;
  PartRuns runs(kLanes);
  // Rounds are short and begin together: in most of them a lane is done while another still has parts to give.
  std::barrier ready(kLanes, [&]() noexcept { runs.share(kParts, kLanes); });
  std::barrier done(kLanes);
  std::vector<std::atomic<int>> times(kParts);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int lane = 0; lane < kLanes; ++lane)
    threads.emplace_back([&, lane] {
      for (int round = 1; round <= rounds; ++round) {
        ready.arrive_and_wait();
        for (int64_t part; (part = runs.claim(lane)) >= 0;) times[static_cast<size_t>(part)]++;
        done.arrive_and_wait();
        if (lane == 0)
          for (const std::atomic<int>& n : times) wrong += n != round;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(runs.left() == 0);
}
