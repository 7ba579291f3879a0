// Matrices in fp64: parts of larger ones, and symmetric or triangular ones of which one triangle is in memory.
//
// Packed, a triangle of n columns is the rows of the upper one behind each other, [n (n + 1) / 2]: (0, 0) .. (0, n -
// 1), (1, 1) .. (1, n - 1) and so on. Read backwards the same memory is a packed lower triangle, both axes reversed.
// Where a triangle is taken, the whole square [n, n] is too, and nothing else of it is read.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/checked.h"
#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "ops/operand.h"

namespace lutra {

struct Matrix64 {
  double* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from the first row to the second
  int64_t growth = 0;  // what every next step is longer: 1 in a packed lower triangle, -1 in a packed upper one

  double* row(int64_t i) const { return data + i * stride + i * (i - 1) / 2 * growth; }
  double& at(int64_t i, int64_t j) const { return row(i)[j]; }
  Matrix64 block(int64_t i, int64_t j, int64_t height, int64_t width) const {
    return {row(i) + j, height, width, stride + i * growth, growth};
  }
};

// Rows of a triangle of these elements, packed or in a square; -1 where it is neither.
int64_t triangle_rows(const TensorView& x);

// f64, a triangle of n rows.
Status require_triangle(const TensorView& x, int64_t n, const char* what);

// Of a triangle: row(i)[j] is element (i, j) for j >= i, and for j <= i.
Matrix64 upper_triangle(const TensorView& x);
Matrix64 lower_triangle(const TensorView& x);

inline double symmetric_at(const Matrix64& upper, int64_t i, int64_t j) {
  return upper.at(std::min(i, j), std::max(i, j));
}

// out[r * stride + j - begin] = convert(element (first + r, j)) of a symmetric matrix, for r < count, begin <= j < end.
template <typename T, typename Convert>
Status read_symmetric(Context& context, const Matrix64& upper, int64_t first, int64_t count, int64_t begin, int64_t end,
                      T* out, int64_t stride, Convert&& convert) {
  constexpr int64_t kColumns = 64, kRows = 16;
  return finished(context.parallel(ceil_div(end - begin, kColumns), [&](int64_t part) {
    const int64_t from = begin + part * kColumns, to = std::min(end, from + kColumns);
    for (int64_t r = 0; r < count; r += kRows) {
      const int64_t last = std::min(count, r + kRows);
      // Left of the diagonal an element lies in its column's row.
      for (int64_t j = from; j < std::min(to, first + last); ++j)
        for (int64_t i = std::max(r, j - first + 1); i < last; ++i)
          out[i * stride + j - begin] = convert(upper.row(j)[first + i]);
      for (int64_t i = r; i < last; ++i)
        for (int64_t j = std::max(from, first + i); j < to; ++j)
          out[i * stride + j - begin] = convert(upper.row(first + i)[j]);
    }
  }));
}

}  // namespace lutra
