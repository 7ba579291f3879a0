// Blocks of some tens of KB to a MB, cut from huge pages that they share.
//
// A matrix has scales and offsets beside its codes. On pages of 4 KB of their own, each of which costs a walk through
// page tables that no cache holds, they slow a product with weights out of memory by a sixth.
#pragma once

#include <cstddef>

namespace lutra {

class HugePageBlocks {
 public:
  static constexpr size_t kPage = size_t{2} << 20;
  static constexpr size_t kUnit = kPage / 64;  // blocks are multiples of it, inside

  // A block of 1 to kPage bytes; null when memory is out. What it holds is not defined.
  static void* allocate(size_t bytes) noexcept;
  // `bytes` as it was allocated with. A page without blocks goes back to the system, but for one.
  static void release(void* block, size_t bytes);
};

}  // namespace lutra
