// Metrics come in fp64 and multiply in fp32.
#pragma once

#include <algorithm>

#include "ops/matrix64.h"
#include "quantize/for_rows.h"

namespace lutra {

// y = wide, both [rows, cols] and dense, rounded to f32.
inline Status narrow_rows(Context& context, const double* wide, int64_t rows, int64_t cols, float* y) {
  return for_rows(context, rows, [=](int64_t row) {
    const double* in = wide + row * cols;
    std::transform(in, in + cols, y + row * cols, [](double x) { return static_cast<float>(x); });
  });
}

// Rows [first, first + count) of a symmetric matrix, whole, rounded to f32: y [count, n].
inline Status narrow_rows(Context& context, const Matrix64& upper, int64_t first, int64_t count, float* y) {
  return read_symmetric(context, upper, first, count, 0, upper.cols, y, upper.cols,
                        [](double x) { return static_cast<float>(x); });
}

}  // namespace lutra
