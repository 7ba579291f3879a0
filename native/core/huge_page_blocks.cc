#include "core/huge_page_blocks.h"

#include <sys/mman.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <new>

namespace lutra {

namespace {

struct Pages {
  std::mutex mutex;
  std::map<uintptr_t, uint64_t> used;  // by the page's address: a bit for each of its units
  int empty = 0;
};

// Never destroyed: buffers may end after the statics do. In static memory, of which there is enough.
Pages& pages() {
  alignas(Pages) static std::byte memory[sizeof(Pages)];
  static Pages& all = *new (memory) Pages;
  return all;
}

int units(size_t bytes) { return static_cast<int>((bytes + HugePageBlocks::kUnit - 1) / HugePageBlocks::kUnit); }
uint64_t mask(int count) { return count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

// Where in a page so many units lie free behind each other; 64 where nowhere.
int find(uint64_t used, int count) {
  uint64_t starts = ~used;
  for (int i = 1; i < count; ++i) starts &= starts >> 1;
  return std::countr_zero(starts);
}

// 0 when memory is out.
uintptr_t map_page() {
  constexpr size_t kPage = HugePageBlocks::kPage;
  void* const data = mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return 0;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t page = (begin + kPage - 1) / kPage * kPage;
  if (page > begin) munmap(data, page - begin);
  munmap(reinterpret_cast<void*>(page + kPage), begin + kPage - page);
  madvise(reinterpret_cast<void*>(page), kPage, MADV_HUGEPAGE);
  return page;
}

}  // namespace

void* HugePageBlocks::allocate(size_t bytes) noexcept {
  Pages& all = pages();
  const std::lock_guard lock(all.mutex);
  const int count = units(bytes);
  auto at = all.used.begin();
  while (at != all.used.end() && find(at->second, count) == 64) ++at;
  if (at == all.used.end()) {
    const uintptr_t page = map_page();
    if (!page) return nullptr;
    try {
      at = all.used.emplace(page, 0).first;
    } catch (const std::bad_alloc&) {
      munmap(reinterpret_cast<void*>(page), kPage);
      return nullptr;
    }
    ++all.empty;
  }
  const int first = find(at->second, count);
  if (at->second == 0) --all.empty;
  at->second |= mask(count) << first;
  return reinterpret_cast<void*>(at->first + static_cast<size_t>(first) * kUnit);
}

void HugePageBlocks::release(void* block, size_t bytes) {
  Pages& all = pages();
  const std::lock_guard lock(all.mutex);
  const auto address = reinterpret_cast<uintptr_t>(block);
  const auto at = all.used.find(address / kPage * kPage);
  at->second &= ~(mask(units(bytes)) << (address % kPage / kUnit));
  if (at->second != 0) return;
  if (all.empty++ == 0) return;
  --all.empty;
  munmap(reinterpret_cast<void*>(at->first), kPage);
  all.used.erase(at);
}

}  // namespace lutra
