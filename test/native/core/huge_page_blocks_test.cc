#include "core/huge_page_blocks.h"

#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "../harness.h"

using namespace lutra;

// Sanitizers have a `new` of their own.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // as GCC says it
#endif
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {

thread_local bool refuses = false;

// Bytes of addresses that this process has taken; 0 where the system does not tell.
size_t address_bytes() {
  size_t pages = 0;
  if (FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%zu", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

void* operator new(size_t bytes) {
  void* const data = refuses ? nullptr : std::malloc(bytes ? bytes : 1);
  if (!data) throw std::bad_alloc();
  return data;
}

void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, size_t) noexcept { std::free(data); }

// Every page needs a little heap to be kept in mind.
LUTRA_TEST(huge_page_blocks, a_page_without_heap_is_null_and_goes_back) {
  constexpr size_t kPage = HugePageBlocks::kPage;
  // Takes the page that may be there empty.
  void* const last = HugePageBlocks::allocate(kPage);
  CHECK(last != nullptr);
  const size_t before = address_bytes();
  int given = 0;
  refuses = true;
  for (int i = 0; i < 200; ++i) given += HugePageBlocks::allocate(kPage) != nullptr;
  refuses = false;
  CHECK(given == 0);
  CHECK(address_bytes() <= before + 100 * kPage);
  void* const next = HugePageBlocks::allocate(kPage);
  CHECK(next != nullptr);
  HugePageBlocks::release(next, kPage);
  HugePageBlocks::release(last, kPage);
}

#endif
