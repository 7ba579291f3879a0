#include "ops/sub_branch.h"

#include <algorithm>

#include "core/half.h"
#include "kernels/narrow_gemm/narrow_gemm.h"

namespace lutra {

namespace {

// Columns whose products share one sum before it joins the row's, as in the products with packed weights.
constexpr int64_t kSegment = 512;

// How far ahead of their turn rows of B are asked for: a tile, with its codes between them and the rows at hand.
constexpr int64_t kRowsAhead = 64;

// A row-major matrix narrower than f32.
struct NarrowMatrix {
  Dtype dtype;
  const void* data;
  const float* scales;  // of the rows, i8 only
  int64_t cols;
};

void dot(const NarrowGemmKernels& kernels, const NarrowMatrix& w, int64_t row, int64_t rows, const float* x,
         int64_t x_stride, int64_t tokens, int64_t first, int64_t count, float* y, int64_t y_stride) {
  const int64_t at = row * w.cols + first;
  if (w.dtype == Dtype::kI8) {
    const int8_t* codes = static_cast<const int8_t*>(w.data) + at;
    return kernels.dot_i8(x + first, x_stride, tokens, codes, w.cols, w.scales + row, rows, count, y, y_stride);
  }
  const HalfDot half = w.dtype == Dtype::kBF16 ? kernels.dot_bf16 : kernels.dot_f16;
  half(x + first, x_stride, tokens, static_cast<const uint16_t*>(w.data) + at, w.cols, rows, count, y, y_stride);
}

// Rows that the caller need not know to exist: nothing is read of them.
void prefetch(const NarrowMatrix& w, int64_t row, int64_t rows) {
  const int64_t bytes = w.cols * static_cast<int64_t>(dtype_bytes(w.dtype));
  const char* at = static_cast<const char*>(w.data) + row * bytes;
  for (int64_t i = 0; i < rows * bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

double value(const NarrowMatrix& w, int64_t row, int64_t col) {
  const int64_t at = row * w.cols + col;
  if (w.dtype == Dtype::kI8) return static_cast<double>(w.scales[row]) * static_cast<const int8_t*>(w.data)[at];
  const uint16_t bits = static_cast<const uint16_t*>(w.data)[at];
  return static_cast<double>(w.dtype == Dtype::kBF16 ? bfloat16_to_float(bits) : half_to_float(bits));
}

// y[token * y_stride + i] = row `row` + i of w times the token.
void multiply(const NarrowMatrix& w, int64_t row, int64_t rows, const float* x, int64_t x_stride, int64_t tokens,
              float* y, int64_t y_stride) {
  const NarrowGemmKernels& kernels = narrow_gemm_kernels();
  for (int64_t r = 0; r < rows; r += kernels.dot_rows)
    for (int64_t t = 0; t < tokens; t += kernels.dot_tokens) {
      const int64_t height = std::min(kernels.dot_rows, rows - r);
      const int64_t width = std::min(kernels.dot_tokens, tokens - t);
      const float* from = x + t * x_stride;
      float* to = y + t * y_stride + r;
      dot(kernels, w, row + r, height, from, x_stride, width, 0, std::min(kSegment, w.cols), to, y_stride);
      for (int64_t k = kSegment; k < w.cols; k += kSegment) {
        float part[kNarrowDots];
        dot(kernels, w, row + r, height, from, x_stride, width, k, std::min(kSegment, w.cols - k), part, height);
        for (int64_t i = 0; i < width; ++i)
          for (int64_t j = 0; j < height; ++j) to[i * y_stride + j] += part[i * height + j];
      }
    }
}

}  // namespace

int64_t sub_branch_step() { return narrow_gemm_kernels().dot_rows; }

void sub_branch_down(const SubBranch& sub_branch, const float* x, int64_t cols, int64_t tokens, int64_t first,
                     float* t) {
  const int64_t rank = sub_branch.rank;
  const NarrowMatrix a{sub_branch.dtype, sub_branch.a, sub_branch.a_scales, cols};
  multiply(a, first, std::min(sub_branch_step(), rank - first), x, cols, tokens, t + first, rank);
}

void sub_branch_up(const SubBranch& sub_branch, int64_t row, int64_t rows, const float* t, int64_t tokens, float* y,
                   int64_t y_stride) {
  const NarrowMatrix b{sub_branch.dtype, sub_branch.b, sub_branch.b_scales, sub_branch.rank};
  // A few rows, and as many of the next tile: memory is busy while these are multiplied.
  for (int64_t r = 0; r < rows; r += sub_branch_step()) {
    const int64_t together = std::min(sub_branch_step(), rows - r);
    prefetch(b, row + r + kRowsAhead, together);
    multiply(b, row + r, together, t, sub_branch.rank, tokens, y + r, y_stride);
  }
}

double sub_branch_roundings(const SubBranch& sub_branch, int64_t cols) {
  // A product, the sum over a segment, the segments, a scale; the same again for B.
  const auto of_row = [](int64_t k) { return std::min(k, kSegment) + (k + kSegment - 1) / kSegment + 2; };
  return static_cast<double>(of_row(cols) + of_row(sub_branch.rank));
}

double sub_branch_a(const SubBranch& sub_branch, int64_t j, int64_t k, int64_t cols) {
  return value({sub_branch.dtype, sub_branch.a, sub_branch.a_scales, cols}, j, k);
}

double sub_branch_b(const SubBranch& sub_branch, int64_t i, int64_t j) {
  return value({sub_branch.dtype, sub_branch.b, sub_branch.b_scales, sub_branch.rank}, i, j);
}

void sub_branch_add(const SubBranch& sub_branch, int64_t i, int64_t first, int64_t last, int64_t cols, double* values) {
  for (int64_t j = 0; j < sub_branch.rank; ++j) {
    const double b = sub_branch_b(sub_branch, i, j);
    for (int64_t k = first; k < last; ++k) values[k - first] += b * sub_branch_a(sub_branch, j, k, cols);
  }
}

}  // namespace lutra
