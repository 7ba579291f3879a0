#include "ops/product64.h"

#include <algorithm>

#include "core/checked.h"
#include "kernels/gemm/gemm.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"
#include "ops/panel64.h"

namespace lutra {

namespace {

constexpr int64_t kDepth = 256;  // two panels of it lie in L2

// c[rows, cols] -= left right^T, panels of `depth`.
void multiply(const double* left, const double* right, int64_t depth, int64_t rows, int64_t cols, double* c,
              int64_t c_stride) {
  const GemmKernels& gemm = gemm_kernels();
  for (int64_t s = 0; s < cols; s += gemm.tile_cols64)
    for (int64_t r = 0; r < rows; r += gemm.tile_rows64)
      gemm.tile64(left + r * depth, right + s * depth, depth, c + r * c_stride + s, c_stride,
                  std::min(gemm.tile_rows64, rows - r), std::min(gemm.tile_cols64, cols - s));
}

// Panels of up to kGemmBlock rows.
template <typename T>
void pack_block(const T* source, int64_t stride, int64_t rows, int64_t depth, int64_t tile, double factor,
                double* panels) {
  for (int64_t r = 0; r < rows; r += tile)
    pack_panel64(source + r * stride, stride, std::min(tile, rows - r), depth, tile, factor, panels + r * depth);
}

// The kernel subtracts: the left operand is packed with its sign turned.
constexpr double kTurned = -1.0;

}  // namespace

Status product64(Context& context, int64_t n, int64_t m, int64_t k, const float* a, const double* b, double* c,
                 int64_t c_stride) {
  const GemmKernels& gemm = gemm_kernels();
  const size_t slot_bytes = static_cast<size_t>(2 * kGemmBlock * kDepth) * sizeof(double);
  const size_t bytes = LaneScratch::bytes(context, slot_bytes);
  void* memory = context.scratch(bytes);
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory, slot_bytes);
  const int64_t across = ceil_div(m, kGemmBlock);
  const int64_t parts = ceil_div(n, kGemmBlock) * across;
  return finished(context.parallel_in_turns(parts, kGemmBlock * kGemmBlock * k, [&](int64_t part) {
    const LaneScratch::Slot slot(lanes);
    double* left = slot.as<double>();
    double* right = left + kGemmBlock * kDepth;
    const int64_t row = part / across * kGemmBlock, column = part % across * kGemmBlock;
    const int64_t rows = std::min(kGemmBlock, n - row), cols = std::min(kGemmBlock, m - column);
    for (int64_t r = row; r < row + rows; ++r) std::fill_n(c + r * c_stride + column, cols, 0.0);
    for (int64_t kk = 0; kk < k; kk += kDepth) {
      const int64_t depth = std::min(kDepth, k - kk);
      pack_block(a + row * k + kk, k, rows, depth, gemm.tile_rows64, kTurned, left);
      pack_block(b + column * k + kk, k, cols, depth, gemm.tile_cols64, 1.0, right);
      multiply(left, right, depth, rows, cols, c + row * c_stride + column, c_stride);
    }
  }));
}

namespace {

constexpr int64_t kStrip = 128;  // columns of one group that a part multiplies

// The strips that groups are cut into: part of the sum of a strip and all columns up to its end.
struct Strips {
  int64_t k;
  int64_t group_size;
  int64_t groups = ceil_div(k, group_size);
  int64_t per_group = ceil_div(std::min(group_size, k), kStrip);

  int64_t count() const { return groups * per_group; }
  int64_t begin(int64_t strip) const { return strip / per_group * group_size + strip % per_group * kStrip; }
  // Not above begin where a ragged group has fewer strips.
  int64_t end(int64_t strip) const {
    return std::min({k, begin(strip) + kStrip, (strip / per_group + 1) * group_size});
  }
  int64_t at(int64_t column) const { return column / group_size * per_group + column % group_size / kStrip; }
};

// Neighbouring columns of a block whose products go to one sum.
struct Segment {
  int64_t begin, end, group;
  double weight;
};

double dot(const double* a, const double* b, int64_t n) {
  constexpr int64_t kWide = 8;
  double sums[kWide] = {};
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide)
    for (int64_t l = 0; l < kWide; ++l) sums[l] += a[i + l] * b[i + l];
  for (; i < n; ++i) sums[i % kWide] += a[i] * b[i];
  double sum = 0.0;
  for (const double part : sums) sum += part;
  return sum;
}

struct StripProduct {
  const Strips& strips;
  const Matrix64& hessian;

  static size_t scratch_bytes() { return static_cast<size_t>(kGemmBlock * (3 * kStrip + kGemmBlock)) * sizeof(double); }

  // Rows [row, row + rows) of columns [begin, begin + depth) as panels; `mirrored` holds those that reach below the
  // diagonal first.
  void pack_rows_of(int64_t row, int64_t rows, int64_t begin, int64_t depth, double* mirrored, double* panels) const {
    const int64_t tile = gemm_kernels().tile_cols64;
    if (row + rows <= begin + 1) {
      const Matrix64 block = hessian.block(row, begin, rows, depth);
      for (int64_t r = 0; r < rows; r += tile)
        pack_panel64(block, r, std::min(tile, rows - r), depth, tile, 1.0, panels + r * depth);
      return;
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < depth; ++j) mirrored[r * depth + j] = symmetric_at(hessian, row + r, begin + j);
    pack_block(mirrored, depth, rows, depth, tile, 1.0, panels);
  }

  // Columns [column, end) by strip. Within the strip's own group those of earlier strips stand for both halves.
  int64_t segments_of(int64_t strip, int64_t column, int64_t end, Segment* segments) const {
    int64_t count = 0;
    while (column < end) {
      const int64_t other = strips.at(column);
      const int64_t stop = std::min(end, strips.end(other));
      const int64_t group = other / strips.per_group;
      const bool twice = other < strip && group == strip / strips.per_group;
      segments[count++] = {column, stop, group, twice ? 2.0 : 1.0};
      column = stop;
    }
    return count;
  }

  // sums[r * stride + group] for up to kGemmBlock rows of x, against every group up to the strip's own.
  void run(int64_t strip, const double* x, int64_t rows, double* scratch, double* sums, int64_t stride) const {
    const GemmKernels& gemm = gemm_kernels();
    const int64_t k = strips.k, begin = strips.begin(strip), end = strips.end(strip), depth = end - begin;
    for (int64_t r = 0; r < rows; ++r) std::fill_n(sums + r * stride, strip / strips.per_group + 1, 0.0);
    if (depth <= 0) return;
    double* left = scratch;
    double* right = left + kGemmBlock * kStrip;
    double* mirrored = right + kGemmBlock * kStrip;
    double* reached = mirrored + kGemmBlock * kStrip;
    pack_block(x + begin, k, rows, depth, gemm.tile_rows64, kTurned, left);
    for (int64_t column = 0; column < end; column += kGemmBlock) {
      const int64_t cols = std::min(kGemmBlock, end - column);
      pack_rows_of(column, cols, begin, depth, mirrored, right);
      std::fill_n(reached, rows * kGemmBlock, 0.0);
      multiply(left, right, depth, rows, cols, reached, kGemmBlock);
      Segment segments[kGemmBlock];
      const int64_t count = segments_of(strip, column, column + cols, segments);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t s = 0; s < count; ++s) {
          const auto [from, to, group, weight] = segments[s];
          sums[r * stride + group] +=
              weight * dot(reached + r * kGemmBlock + from - column, x + r * k + from, to - from);
        }
    }
  }
};

}  // namespace

Status group_gram(Context& context, int64_t n, const double* x, const Matrix64& hessian, int64_t group_size,
                  double* gram, int64_t row_stride, int64_t stride) {
  const int64_t k = hessian.rows;
  if (n == 0 || k == 0) return ok_status();
  const Strips strips{k, group_size};
  const bool whole = strips.per_group == 1;
  const size_t slot_bytes = StripProduct::scratch_bytes();
  const int64_t parts = strips.count() * strips.groups;  // of one row
  const size_t part_bytes = whole ? 0 : static_cast<size_t>(round_up(n * parts, 8)) * sizeof(double);
  const size_t bytes = part_bytes + LaneScratch::bytes(context, slot_bytes);
  auto* memory = static_cast<uint8_t*>(context.scratch(bytes));
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  // Sums of strips, [n, strips, groups], where a group has several.
  auto* sums = whole ? gram : reinterpret_cast<double*>(memory);
  const int64_t sums_row = whole ? row_stride : parts, sums_strip = whole ? stride : strips.groups;
  LaneScratch lanes(context, memory + part_bytes, slot_bytes);
  const StripProduct product{strips, hessian};
  const int64_t products = strips.count() * ceil_div(n, kGemmBlock);
  const bool multiplied = context.parallel_in_turns(products, kGemmBlock * kStrip * k, [&](int64_t part) {
    const LaneScratch::Slot slot(lanes);
    const int64_t strip = part % strips.count(), row = part / strips.count() * kGemmBlock;
    product.run(strip, x + row * k, std::min(kGemmBlock, n - row), slot.as<double>(),
                sums + row * sums_row + strip * sums_strip, sums_row);
  });
  if (!multiplied || whole) return finished(multiplied);
  return finished(context.parallel(n, [&](int64_t row) {
    for (int64_t a = 0; a < strips.groups; ++a)
      for (int64_t b = 0; b <= a; ++b) {
        double sum = 0.0;
        for (int64_t strip = a * strips.per_group; strip < (a + 1) * strips.per_group; ++strip)
          sum += sums[row * sums_row + strip * sums_strip + b];
        gram[row * row_stride + a * stride + b] = sum;
      }
  }));
}

}  // namespace lutra
