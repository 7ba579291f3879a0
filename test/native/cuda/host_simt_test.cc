// The machine of fibers itself: it must find what a device would hang on, and multiply as the PTX ISA says.
#include "cuda/simt/host_simt.h"

#include "../harness.h"

using namespace lutra;
using namespace lutra::cuda;
using namespace lutra::test;

namespace {

HostLaunch launch_of(int blocks, int threads, int resident) {
  HostLaunch launch;
  launch.blocks = blocks;
  launch.threads = threads;
  launch.resident = resident;
  launch.shared_bytes = 256;
  return launch;
}

uint32_t pack(float low, float high) { return half_of(low) | half_of(high) << 16; }

}  // namespace

LUTRA_TEST(cuda, host_machine_runs_every_thread_of_every_block) {
  std::vector<int> runs(7 * 64, 0);
  CHECK(run_grid(launch_of(7, 64, 3), [&](uint8_t*) {
          sync_block();
          ++runs[static_cast<size_t>(block_index() * block_threads() + thread_index())];
        }).empty());
  for (int count : runs) CHECK(count == 1);
}

LUTRA_TEST(cuda, host_machine_finds_what_would_hang) {
  const HostLaunch two_warps = launch_of(1, 64, 1);
  CHECK(!run_grid(two_warps, [](uint8_t*) {
           if (thread_index() != 5) sync_block();
         }).empty());
  CHECK(!run_grid(two_warps, [](uint8_t*) {
           if (thread_index() % 2) sync_warp();
         }).empty());
  CHECK(!run_grid(two_warps, [](uint8_t*) {
           if (thread_index() < 16)
             sync_warp();
           else
             shuffle_xor(0.0f, 1);
         }).empty());
  // Block 0 waits for block 1, which starts when block 0 has ended.
  uint32_t flag = 0;
  const auto wait_for_next = [&](uint8_t*) {
    if (thread_index() != 0) return;
    if (block_index() == 1) publish(&flag);
    while (!look(&flag)) pause_spin();
  };
  CHECK(!run_grid(launch_of(2, 32, 1), wait_for_next).empty());
  flag = 0;
  CHECK(run_grid(launch_of(2, 32, 2), wait_for_next).empty());
  alignas(16) uint32_t words[8] = {};
  CHECK(!run_grid(launch_of(1, 32, 1), [&](uint8_t*) { load4(words + 1); }).empty());
}

LUTRA_TEST(cuda, host_machine_draws_another_order_with_another_seed) {
  std::vector<int> orders[2];
  for (uint64_t seed : {1, 2}) {
    HostLaunch launch = launch_of(1, 64, 1);
    launch.seed = seed;
    CHECK(run_grid(launch, [&](uint8_t*) { orders[seed - 1].push_back(thread_index()); }).empty());
  }
  CHECK(orders[0] != orders[1]);
}

LUTRA_TEST(cuda, host_machine_multiplies_fragments) {
  // A[i][k] = i + 16 k and B[k][j] = 1 where k == 2 j + 1: the result is A's column 2 j + 1.
  const auto a_at = [](int i, int k) { return static_cast<float>(i + 16 * k); };
  const auto b_at = [](int k, int j) { return k == 2 * j + 1 ? 1.0f : 0.0f; };
  CHECK(run_grid(launch_of(1, 32, 1), [&](uint8_t*) {
          const int g = thread_index() / 4;
          const int t = thread_index() % 4;
          uint32_t a[4], b[2];
          float c[4] = {0.5f, 0.5f, 0.5f, 0.5f};
          for (int r = 0; r < 4; ++r) {
            const int i = g + r % 2 * 8, k = 2 * t + r / 2 * 8;
            a[r] = pack(a_at(i, k), a_at(i, k + 1));
          }
          for (int r = 0; r < 2; ++r) b[r] = pack(b_at(2 * t + 8 * r, g), b_at(2 * t + 8 * r + 1, g));
          mma_f16(c, a, b);
          for (int r = 0; r < 4; ++r) CHECK(c[r] == a_at(g + r / 2 * 8, 2 * (2 * t + r % 2) + 1) + 0.5f);
        }).empty());
}
