#include "ops/triangular.h"

#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"
#include "ops/panel64.h"

namespace lutra {

namespace {

// c -= left right^T, panels of k, in the tile at (row, column). Rows that do not follow each other in even steps get
// it by way of a whole tile, the same bits, and only up to the diagonal: what lies behind it belongs to the next row.
void subtract_tile(const double* left, const double* right, int64_t k, const Matrix64& c, int64_t row, int64_t column) {
  const GemmKernels& gemm = gemm_kernels();
  const int64_t rows = std::min(gemm.tile_rows64, c.rows - row), cols = std::min(gemm.tile_cols64, c.cols - column);
  if (c.growth == 0) return gemm.tile64(left, right, k, c.row(row) + column, c.stride, rows, cols);
  alignas(64) double sums[kMostTileRows * kMostTileRows];
  const int64_t stride = gemm.tile_cols64;
  std::fill_n(sums, rows * stride, 0.0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t s = 0; s < cols; s += 8) __builtin_prefetch(c.row(row + r) + column + s, 1);
  gemm.tile64(left, right, k, sums, stride, rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    double* target = c.row(row + r) + column;
    const int64_t live = std::min(cols, row + r + 1 - column);
    for (int64_t s = 0; s < live; ++s) target[s] += sums[r * stride + s];
  }
}

}  // namespace

Status subtract_outer_lower(Context& context, const Matrix64& a, const Matrix64& c) {
  LUTRA_TRY(require_equal(c.rows, a.rows, "subtract_outer_lower: rows of c, against rows of a"));
  LUTRA_TRY(require_equal(c.cols, a.rows, "subtract_outer_lower: columns of c, against rows of a"));
  const GemmKernels& gemm = gemm_kernels();
  const int64_t n = a.rows;
  const int64_t k = a.cols;
  const int64_t blocks = ceil_div(n, kGemmBlock);
  const int64_t padded = blocks * kGemmBlock;
  const size_t bytes = static_cast<size_t>(2 * padded * k) * sizeof(double);
  auto* left = static_cast<double*>(context.scratch(bytes));
  if (!left) return out_of_memory(static_cast<int64_t>(bytes));
  double* right = left + padded * k;
  // Every row is packed in both roles once; the blocks share the panels.
  const bool packed = context.parallel(blocks, [&](int64_t block) {
    const int64_t begin = block * kGemmBlock;
    for (int64_t r = begin; r < begin + kGemmBlock; r += gemm.tile_rows64)
      pack_panel64(a, r, std::min(gemm.tile_rows64, n - r), k, gemm.tile_rows64, 1.0, left + r * k);
    for (int64_t r = begin; r < begin + kGemmBlock; r += gemm.tile_cols64)
      pack_panel64(a, r, std::min(gemm.tile_cols64, n - r), k, gemm.tile_cols64, 1.0, right + r * k);
  });
  if (!packed) return finished(false);
  return finished(context.parallel(blocks * blocks, [&](int64_t part) {
    const int64_t i = part / blocks * kGemmBlock;
    const int64_t j = part % blocks * kGemmBlock;
    if (j > i) return;
    for (int64_t r = i; r < std::min(n, i + kGemmBlock); r += gemm.tile_rows64)
      for (int64_t s = j; s < std::min(n, j + kGemmBlock); s += gemm.tile_cols64)
        subtract_tile(left + r * k, right + s * k, k, c, r, s);
  }));
}

Status solve_lower_transposed(Context& context, const Matrix64& l, const Matrix64& x) {
  const int64_t k = x.cols;
  if (k > kGemmBlock)
    return error(Code::kShape, "solve_lower_transposed: too many columns for one block", k, kGemmBlock);
  LUTRA_TRY(require_equal(l.rows, k, "solve_lower_transposed: rows of L, against columns of x"));
  LUTRA_TRY(require_equal(l.cols, k, "solve_lower_transposed: columns of L, against columns of x"));
  constexpr int64_t kRows = kMostTileRows;  // right-hand sides solved together, side by side: [k][kRows]
  const size_t slot_bytes = static_cast<size_t>(k * kRows) * sizeof(double);
  const size_t bytes = LaneScratch::bytes(context, slot_bytes);
  void* memory = context.scratch(bytes);
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory, slot_bytes);
  return finished(context.parallel(ceil_div(x.rows, kRows), [&](int64_t part) {
    const LaneScratch::Slot slot(lanes);
    double* side = slot.as<double>();
    const Matrix64 own = x.block(part * kRows, 0, std::min(kRows, x.rows - part * kRows), k);
    pack_panel64(own, 0, own.rows, k, kRows, 1.0, side);
    for (int64_t j = 0; j < k; ++j) {
      double* target = side + j * kRows;
      const double* line = l.row(j);
      for (int64_t i = 0; i < j; ++i) {
        const double factor = line[i];
        for (int64_t r = 0; r < kRows; ++r) target[r] -= factor * side[i * kRows + r];
      }
      for (int64_t r = 0; r < kRows; ++r) target[r] /= line[j];
    }
    for (int64_t r = 0; r < own.rows; ++r) {
      double* out = own.row(r);
      for (int64_t j = 0; j < k; ++j) out[j] = side[j * kRows + r];
    }
  }));
}

}  // namespace lutra
