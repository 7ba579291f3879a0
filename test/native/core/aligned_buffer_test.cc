#include "core/aligned_buffer.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "../harness.h"

using namespace lutra;

namespace {

// Bytes of this process in memory; 0 where the system does not tell.
size_t resident_bytes() {
  size_t pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*s %zu", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

LUTRA_TEST(aligned_buffer, holds_its_bytes_on_both_sides_of_every_limit) {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{65}, AlignedBuffer::kSharedBytes - 1, AlignedBuffer::kSharedBytes,
                       AlignedBuffer::kSharedBytes + 1, AlignedBuffer::kMappedBytes - 1, AlignedBuffer::kMappedBytes,
                       AlignedBuffer::kMappedBytes + 1}) {
    AlignedBuffer buffer(bytes);
    CHECK(static_cast<bool>(buffer));
    CHECK(buffer.bytes() == bytes);
    CHECK(reinterpret_cast<uintptr_t>(buffer.as()) % AlignedBuffer::kAlignment == 0);
    std::memset(buffer.as(), 7, bytes);
    AlignedBuffer moved(std::move(buffer));
    CHECK(!buffer && buffer.bytes() == 0);
    CHECK(bytes == 0 || moved.as<uint8_t>()[bytes - 1] == 7);
  }
}

// Blocks of all sizes that share pages, replaced again and again by several threads: none touches another.
LUTRA_TEST(aligned_buffer, blocks_that_share_pages_keep_apart) {
  std::atomic<int> wrong{0};
  const auto run = [&](uint8_t thread) {
    std::mt19937 random(thread);
    std::vector<AlignedBuffer> blocks(24);
    std::vector<uint8_t> marks(blocks.size());
    for (int turn = 0; turn < 400; ++turn) {
      const size_t i = random() % blocks.size();
      const auto holds = [](const AlignedBuffer& block, uint8_t mark) {
        for (size_t at = 0; at < block.bytes(); at += 4096)
          if (block.as<uint8_t>()[at] != mark) return false;
        return block.bytes() == 0 || block.as<uint8_t>()[block.bytes() - 1] == mark;
      };
      if (!holds(blocks[i], marks[i])) ++wrong;
      const size_t span = AlignedBuffer::kMappedBytes - AlignedBuffer::kSharedBytes;
      blocks[i] = AlignedBuffer::zeroed(AlignedBuffer::kSharedBytes + random() % span);
      if (!blocks[i] || !holds(blocks[i], 0)) ++wrong;
      marks[i] = static_cast<uint8_t>(8 * turn + thread);
      std::memset(blocks[i].as(), marks[i], blocks[i].bytes());
    }
  };
  std::vector<std::thread> threads;
  for (uint8_t thread = 1; thread <= 3; ++thread) threads.emplace_back(run, thread);
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

LUTRA_TEST(aligned_buffer, refuses_what_no_machine_has) {
  for (size_t bytes : {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2}) {
    const AlignedBuffer buffer(bytes);
    CHECK(!buffer);
    CHECK(buffer.bytes() == 0);
  }
}

// Matrix after matrix, with small allocations between them that keep the heap from shrinking.
LUTRA_TEST(aligned_buffer, gives_large_blocks_back) {
#if !defined(__SANITIZE_ADDRESS__)
  constexpr size_t kBlock = size_t{16} << 20;
  std::vector<std::unique_ptr<char[]>> between;
  const size_t before = resident_bytes();
  for (int i = 0; i < 32; ++i) {
    const AlignedBuffer buffer(kBlock);
    CHECK(static_cast<bool>(buffer));
    std::memset(buffer.as(), 1, kBlock);
    between.push_back(std::make_unique<char[]>(1000));
  }
  CHECK(resident_bytes() < before + 4 * kBlock);
#endif
}

LUTRA_TEST(aligned_buffer, gives_shared_pages_back) {
#if !defined(__SANITIZE_ADDRESS__)
  constexpr size_t kBlock = AlignedBuffer::kMappedBytes / 2;
  constexpr size_t kBlocks = 256;
  std::vector<AlignedBuffer> blocks;
  for (size_t i = 0; i < kBlocks; ++i) {
    blocks.emplace_back(kBlock);
    std::memset(blocks.back().as(), 1, kBlock);
  }
  const size_t held = resident_bytes();
  if (held == 0) return;
  blocks.clear();
  CHECK(resident_bytes() + kBlocks * kBlock * 3 / 4 < held);
#endif
}
