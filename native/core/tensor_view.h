// A typed pointer with a shape: how every layer above core names an operand. Owns nothing.
// Tensors are dense and row-major; the last dimension is contiguous.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

enum class Dtype : uint8_t { kF32, kF16, kBF16, kF64, kU8, kI32, kI8 };

constexpr size_t dtype_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::kU8:
    case Dtype::kI8:
      return 1;
    case Dtype::kF16:
    case Dtype::kBF16:
      return 2;
    case Dtype::kF64:
      return 8;
    default:
      return 4;
  }
}

struct TensorView {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int rank = 0;
  int64_t shape[kMaxRank] = {0, 0, 0, 0};

  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  // The tensor seen as a matrix: all dimensions but the last are rows.
  int64_t cols() const { return rank ? shape[rank - 1] : 1; }
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= shape[i];
    return n;
  }
  size_t bytes() const { return static_cast<size_t>(elements()) * dtype_bytes(dtype); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace lutra
