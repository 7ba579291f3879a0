#include "core/aligned_buffer.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
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

LUTRA_TEST(aligned_buffer, holds_its_bytes_on_both_sides_of_the_mapping_size) {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{65}, AlignedBuffer::kMappedBytes - 1, AlignedBuffer::kMappedBytes,
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
