// Operands of operators under test: guarded memory with a shape.
#pragma once

#include <initializer_list>
#include <memory>

#include "core/half.h"
#include "core/tensor_view.h"
#include "core/thread_pool.h"
#include "harness.h"
#include "ops/context.h"

namespace lutra::test {

template <typename T>
constexpr Dtype dtype_of() {
  if constexpr (std::is_same_v<T, float>) return Dtype::kF32;
  if constexpr (std::is_same_v<T, double>) return Dtype::kF64;
  if constexpr (std::is_same_v<T, int32_t>) return Dtype::kI32;
  if constexpr (std::is_same_v<T, uint8_t>) return Dtype::kU8;
  return Dtype::kF16;  // uint16_t; bf16 says so itself
}

// A tensor whose memory ends before a guard page and is NaN (or all ones) until written.
template <typename T>
struct Operand {
  Guarded<T> memory;
  TensorView view;

  explicit Operand(std::initializer_list<int64_t> shape, Dtype dtype = dtype_of<T>())
      : memory(static_cast<size_t>(count_of(shape))) {
    view.data = memory.data();
    view.dtype = dtype;
    for (int64_t size : shape) view.shape[view.rank++] = size;
  }
  T* data() { return memory.data(); }
  size_t count() const { return memory.size(); }
  T& operator[](size_t i) { return memory[i]; }
  bool same_bits(const Operand& other) const {
    return count() == other.count() && !std::memcmp(memory.data(), other.memory.data(), count() * sizeof(T));
  }

 private:
  static int64_t count_of(std::initializer_list<int64_t> shape) {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
};

inline void fill(Operand<float>& operand, Distribution d, uint64_t seed) {
  fill(operand.data(), operand.count(), d, seed);
}

// Rounds normal numbers into a 16-bit operand.
inline void fill(Operand<uint16_t>& operand, Distribution d, uint64_t seed) {
  std::vector<float> wide(operand.count());
  fill(wide.data(), wide.size(), d, seed);
  for (size_t i = 0; i < wide.size(); ++i)
    operand[i] = operand.view.dtype == Dtype::kBF16 ? float_to_bfloat16(wide[i]) : float_to_half(wide[i]);
}

// A context with a pool of its own.
struct Lanes {
  ThreadPool pool;
  Context context;
  explicit Lanes(int lanes) : pool(lanes) { context.pool = &pool; }
};

}  // namespace lutra::test
