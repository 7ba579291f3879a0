// A random quantized matrix on the device, in so many copies that a round over them is larger than any cache, and its
// answer in fp64 for a sample of rows.
#pragma once

#include <random>
#include <vector>

#include "bench_device.h"
#include "core/half.h"
#include "cuda/lut_gemm/fragments.h"

namespace lutra::bench {

constexpr size_t kRoundBytes = size_t{512} << 20;  // that a round reads at least: 8 times the L2 of an H200
constexpr int64_t kSampledRows = 64;

// Random numbers that repeat with a period that no shape has: drawing billions of them would take longer than the
// kernels.
constexpr size_t kPeriod = 999983;

template <typename T, typename Draw>
std::vector<T> repeated(size_t count, Draw&& draw) {
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = i < kPeriod ? draw() : values[i - kPeriod];
  return values;
}

inline std::vector<uint16_t> random_halves(size_t count, float low, float high, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  return repeated<uint16_t>(count, [&] { return float_to_half(uniform(random)); });
}

inline std::vector<uint32_t> random_words(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  return repeated<uint32_t>(count, [&] { return static_cast<uint32_t>(random()); });
}

class BenchMatrix {
 public:
  BenchMatrix(BenchDevice& device, int64_t rows, int64_t cols, int bits, WeightKind kind, int64_t rank)
      : device_(device) {
    layout_.rows = rows;
    layout_.cols = cols;
    layout_.group_size = 128;
    layout_.bits = bits;
    layout_.kind = kind;
    codes_ = random_words(static_cast<size_t>(cuda::fragment_words(layout_)), 1);
    scales_ = random_halves(static_cast<size_t>(layout_.scales_elements()), 0.01f, 0.02f, 2);
    a_ = random_halves(static_cast<size_t>(rank * cols), -0.02f, 0.02f, 3);
    b_ = random_halves(static_cast<size_t>(rank * rows), -0.02f, 0.02f, 4);
    const size_t copies = std::max<size_t>(2, (kRoundBytes + bytes() - 1) / bytes());
    for (size_t i = 0; i < copies; ++i) copies_.push_back(make_copy(rank));
  }
  ~BenchMatrix() {
    for (const LutraCudaMatrix& w : copies_)
      for (const void* p : {w.codes, w.scales, w.branch_a, w.branch_b})
        if (p) device_.release(const_cast<void*>(p));
  }
  BenchMatrix(const BenchMatrix&) = delete;
  BenchMatrix& operator=(const BenchMatrix&) = delete;

  int copies() const { return static_cast<int>(copies_.size()); }
  const LutraCudaMatrix& copy(int i) const { return copies_[static_cast<size_t>(i) % copies_.size()]; }
  // The fewest bytes that a product reads of the matrix.
  size_t bytes() const { return packed_bytes() + 2 * (a_.size() + b_.size()); }
  size_t packed_bytes() const {
    return static_cast<size_t>(layout_.rows * layout_.cols * layout_.bits / 8) + scales_.size() * 2;
  }

  // NMSE of y [tokens, rows] on the sampled rows and every token_step-th token; x as stored in f16 [tokens, cols].
  double error(const std::vector<uint16_t>& x, const std::vector<float>& y, bool with_branch,
               int64_t token_step = 1) const {
    const int64_t tokens = static_cast<int64_t>(y.size()) / layout_.rows;
    const int64_t step = std::max<int64_t>(1, layout_.rows / kSampledRows);
    double error = 0;
    double power = 0;
    std::vector<double> weights(static_cast<size_t>(layout_.cols));
    for (int64_t row = step / 2; row < layout_.rows; row += step) {
      for (int64_t k = 0; k < layout_.cols; ++k) weights[static_cast<size_t>(k)] = weight(row, k);
      for (int64_t t = 0; t < tokens; t += token_step) {
        double sum = with_branch ? branch(row, x.data() + t * layout_.cols) : 0.0;
        for (int64_t k = 0; k < layout_.cols; ++k)
          sum += weights[static_cast<size_t>(k)] * half(x[static_cast<size_t>(t * layout_.cols + k)]);
        const double off = static_cast<double>(y[static_cast<size_t>(t * layout_.rows + row)]) - sum;
        error += off * off;
        power += sum * sum;
      }
    }
    return error / power;
  }

 private:
  static double half(uint16_t bits) { return static_cast<double>(half_to_float(bits)); }

  LutraCudaMatrix make_copy(int64_t rank) {
    LutraCudaMatrix w = {};
    w.rows = layout_.rows;
    w.cols = layout_.cols;
    w.group_size = layout_.group_size;
    w.bits = layout_.bits;
    w.kind = static_cast<int32_t>(layout_.kind);
    w.offset_kind = static_cast<int32_t>(layout_.offset_kind);
    w.scale_dtype = static_cast<int32_t>(layout_.scale_dtype);
    w.branch_dtype = static_cast<int32_t>(Dtype::kF16);
    w.branch_rank = rank;
    w.codes = device_.uploaded(codes_);
    w.scales = device_.uploaded(scales_);
    if (rank > 0) w.branch_a = device_.uploaded(a_);
    if (rank > 0) w.branch_b = device_.uploaded(b_);
    return w;
  }

  double weight(int64_t row, int64_t col) const {
    const int64_t tile = row / PackedLayout::kTileRows;
    const int code = cuda::fragment_code(layout_, codes_.data(), row, col);
    const int planes = layout_.scale_planes();
    const int64_t line = col / layout_.group_size * planes;
    const auto scale = [&](int plane) {
      return half(scales_[static_cast<size_t>(layout_.scales_at(tile) + (line + plane) * layout_.tile_rows(tile) +
                                              row % PackedLayout::kTileRows)]);
    };
    if (planes == 1) return scale(0) * (code - (1 << (layout_.bits - 1)));
    double sum = 0;
    for (int p = 0; p < planes; ++p) sum += scale(p) * ((code >> p & 1) - 0.5);
    return sum;
  }

  double branch(int64_t row, const uint16_t* x) const {
    const int64_t rank = static_cast<int64_t>(a_.size()) / layout_.cols;
    double sum = 0;
    for (int64_t j = 0; j < rank; ++j) {
      double t = 0;
      for (int64_t k = 0; k < layout_.cols; ++k) t += half(a_[static_cast<size_t>(j * layout_.cols + k)]) * half(x[k]);
      sum += half(b_[static_cast<size_t>(row * rank + j)]) * t;
    }
    return sum;
  }

  BenchDevice& device_;
  PackedLayout layout_;
  std::vector<uint32_t> codes_;
  std::vector<uint16_t> scales_;
  std::vector<uint16_t> a_;
  std::vector<uint16_t> b_;
  std::vector<LutraCudaMatrix> copies_;
};

}  // namespace lutra::bench
