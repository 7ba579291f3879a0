// Operands out of a fuzzer's bytes: tensors of small and of odd shapes, with ordinary and with hostile content.
//
// Shapes are drawn from a few sizes that an input chooses first, and from their quotients, so that operands fit each
// other often enough for the work behind the checks to be reached. Every tensor ends where its heap block ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "packing/layout.h"

namespace lutra::fuzz {

// Bytes of the input, one after the other; zeros behind its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return empty() ? 0 : data_[at_++]; }
  uint64_t word() {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word = word << 8 | byte();
    return word;
  }
  template <typename T, size_t N>
  T pick(const T (&list)[N]) {
    return list[byte() % N];
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

class Operands {
 public:
  explicit Operands(Input& input);
  // A new tensor, or one that was handed out before, or its first rows.
  TensorView tensor();
  // Packed weights whose layout the library accepts.
  PackedView packed();
  // A size, a flag, a type, a small real, or something absurd.
  double parameter();
  int64_t position();

 private:
  int64_t size();
  uint8_t* block(size_t bytes, size_t slack);
  void fill(const TensorView& view, int kind);
  TensorView filled(Dtype dtype, std::vector<int64_t> shape);

  Input& input_;
  int64_t sizes_[4];
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  std::vector<TensorView> tensors_;
};

}  // namespace lutra::fuzz
