#include "ops/context.h"

#include "../operands.h"

using namespace lutra;
using namespace lutra::test;

LUTRA_TEST(ops, regions_in_turns_follow_each_other) {
  for (int lanes : {1, 3}) {
    Lanes some(lanes);
    for (int64_t parts : {0, 1, 7, 40})
      for (int64_t together : {lanes, 4 * lanes, 100 * lanes}) {
        std::vector<std::atomic<int>> runs(static_cast<size_t>(parts));
        std::atomic<int64_t> done{0};
        std::atomic<bool> early{false};
        // Parts so long that a region has so many.
        const int64_t products = lanes * kRegionProducts / together;
        CHECK(some.context.parallel_in_turns(parts, products, [&](int64_t part) {
          if (done < part / together * together) early = true;
          runs[static_cast<size_t>(part)]++;
          done++;
        }));
        for (const auto& count : runs) CHECK(count == 1);
        CHECK(!early);
      }
  }
}

LUTRA_TEST(ops, regions_in_turns_stop_when_cancelled) {
  Lanes some(2);
  CancelToken cancel;
  some.context.cancel = &cancel;
  std::atomic<int64_t> last{0};
  CHECK(!some.context.parallel_in_turns(100, kRegionProducts / 5, [&](int64_t part) {
    if (part == 25) cancel.cancel();
    if (part > last) last = part;
  }));
  CHECK(last < 30);
}
