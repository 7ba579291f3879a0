#include "platform/file.h"

#include <unistd.h>

#include <cerrno>

namespace lutra {

namespace {

constexpr size_t kPieceBytes = size_t{8} << 20;

// Calls `move(offset, count)` until all bytes went through; it returns what pread and pwrite return.
template <typename Move>
Status move_all(size_t bytes, const CancelToken* cancel, const char* refused, const char* ended, Move move) {
  size_t done = 0;
  while (done < bytes) {
    if (cancel && cancel->cancelled()) return error(Code::kCancelled, "cancelled");
    const size_t left = bytes - done;
    const ssize_t moved = move(done, left < kPieceBytes ? left : kPieceBytes);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return error(Code::kIo, refused, errno);
    if (moved == 0) return error(Code::kTruncated, ended, static_cast<int64_t>(done), static_cast<int64_t>(bytes));
    done += static_cast<size_t>(moved);
  }
  return ok_status();
}

}  // namespace

Status read_file(int descriptor, int64_t position, void* data, size_t bytes, const CancelToken* cancel) {
  return move_all(bytes, cancel, "the file could not be read", "the file ends before the requested bytes",
                  [&](size_t done, size_t count) {
                    return pread(descriptor, static_cast<char*>(data) + done, count,
                                 static_cast<off_t>(position + static_cast<int64_t>(done)));
                  });
}

Status write_file(int descriptor, int64_t position, const void* data, size_t bytes, const CancelToken* cancel) {
  return move_all(bytes, cancel, "the file could not be written", "the file took no more bytes",
                  [&](size_t done, size_t count) {
                    return pwrite(descriptor, static_cast<const char*>(data) + done, count,
                                  static_cast<off_t>(position + static_cast<int64_t>(done)));
                  });
}

}  // namespace lutra
