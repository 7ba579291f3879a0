#include "core/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/huge_page_blocks.h"

namespace lutra {

namespace {

// Address sanitizer watches the ends of heap blocks, not those of mappings.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1  // as GCC says it
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kMap = false;
#else
constexpr bool kMap = true;
#endif

bool mapped(size_t bytes) { return kMap && bytes >= AlignedBuffer::kMappedBytes; }
bool shared(size_t bytes) { return kMap && !mapped(bytes) && bytes >= AlignedBuffer::kSharedBytes; }

// Whole huge pages where they are hardly more: the system lays them under whole ones alone.
size_t mapping_bytes(size_t bytes) {
  constexpr size_t kPage = HugePageBlocks::kPage;
  const size_t whole = (bytes + kPage - 1) / kPage * kPage;
  return whole - bytes <= bytes / 8 ? whole : bytes;
}

}  // namespace

AlignedBuffer AlignedBuffer::zeroed(size_t bytes) {
  AlignedBuffer buffer(bytes);
  if (buffer && !mapped(bytes)) std::memset(buffer.data_, 0, bytes);
  return buffer;
}

void* AlignedBuffer::allocate(size_t bytes) {
  if (bytes > SIZE_MAX - kAlignment) return nullptr;
  if (mapped(bytes)) {
    void* data = mmap(nullptr, mapping_bytes(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    madvise(data, mapping_bytes(bytes), MADV_HUGEPAGE);
    return data;
  }
  if (shared(bytes)) return HugePageBlocks::allocate(bytes);
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return std::aligned_alloc(kAlignment, rounded ? rounded : kAlignment);
}

void AlignedBuffer::release(void* data, size_t bytes) {
  if (data && mapped(bytes))
    munmap(data, mapping_bytes(bytes));
  else if (data && shared(bytes))
    HugePageBlocks::release(data, bytes);
  else
    std::free(data);
}

}  // namespace lutra
