// Panels of fp64 register tiles, packed from rows of any width.
#pragma once

#include <cstdint>

#include "ops/matrix64.h"

namespace lutra {

// panel[kk * tile + r] = factor * source[r * stride + kk] for `live` <= tile rows of k elements; rows past them are 0.
template <typename T>
void pack_panel64(const T* source, int64_t stride, int64_t live, int64_t k, int64_t tile, double factor,
                  double* panel) {
  for (int64_t kk = 0; kk < k; ++kk)
    for (int64_t r = 0; r < tile; ++r)
      panel[kk * tile + r] = r < live ? factor * static_cast<double>(source[r * stride + kk]) : 0.0;
}

// Of the rows from `first` on of a matrix whose steps from row to row may differ, at most kMostTileRows.
constexpr int64_t kMostTileRows = 32;

inline void pack_panel64(const Matrix64& source, int64_t first, int64_t live, int64_t k, int64_t tile, double factor,
                         double* panel) {
  const double* rows[kMostTileRows];
  for (int64_t r = 0; r < live; ++r) rows[r] = source.row(first + r);
  for (int64_t kk = 0; kk < k; ++kk)
    for (int64_t r = 0; r < tile; ++r) panel[kk * tile + r] = r < live ? factor * rows[r][kk] : 0.0;
}

}  // namespace lutra
