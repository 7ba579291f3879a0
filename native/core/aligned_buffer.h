// A 64-byte aligned, move-only block of memory. Allocation failure is a state, not an exception.
//
// Blocks of kMappedBytes and more are mappings of their own, so that their memory goes back to the system when they
// end: aligned_alloc of glibc before 2.38 cannot use a freed block again for a request of the same size, and a job that
// loads one matrix after the other would grow by each of them. Those of kSharedBytes and more share huge pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace lutra {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kMappedBytes = size_t{1} << 20;
  static constexpr size_t kSharedBytes = size_t{1} << 16;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : data_(allocate(bytes)), bytes_(data_ ? bytes : 0) {}
  // All bytes zero; mappings come so, and no page of theirs is touched here.
  static AlignedBuffer zeroed(size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { release(data_, bytes_); }

  explicit operator bool() const { return data_ != nullptr; }
  size_t bytes() const { return bytes_; }
  template <typename T = void>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  static void* allocate(size_t bytes);
  static void release(void* data, size_t bytes);

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace lutra
