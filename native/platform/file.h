// Positioned reads and writes that either move every byte or say why not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cancel.h"
#include "core/status.h"

namespace lutra {

// Bytes [position, position + bytes) of an open file into `data`. A file that ends before is kTruncated with the
// bytes it had; any other refusal is kIo with errno in `found`. Moves at most 8 MiB between two looks at `cancel`.
Status read_file(int descriptor, int64_t position, void* data, size_t bytes, const CancelToken* cancel);
Status write_file(int descriptor, int64_t position, const void* data, size_t bytes, const CancelToken* cancel);

}  // namespace lutra
