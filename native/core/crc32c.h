// The checksum of stored tensors: CRC-32C (Castagnoli), reflected, as iSCSI and ext4 have it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

// Of the bytes behind those whose checksum is `before`, which is 0 where there are none.
uint32_t crc32c(const void* data, size_t bytes, uint32_t before = 0);

}  // namespace lutra
