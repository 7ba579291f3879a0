// X^T X for calibration. A part owns one block of the upper triangle and carries it through all rows of x; the block
// below the diagonal is its mirror image.
#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "ops/lane_scratch.h"
#include "ops/linear.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kBlock = 2 * kGemmBlock;
constexpr int64_t kDepth = 256;        // rows of x in one packed panel
constexpr int64_t kFp32Rows = 512;     // rows of x summed in fp32
constexpr int64_t kRegionRows = 4096;  // rows of x between two looks at the cancel token
constexpr size_t kPanelFloats = kBlock * kDepth;

struct GramBlock {
  const float* x;
  int64_t k;
  double* gram;
  const GemmKernels& gemm;

  void pack(int64_t row, int64_t depth, int64_t column, int64_t columns, int64_t tile, float* panels) const {
    for (int64_t j = 0; j < columns; j += tile)
      gemm.pack_columns(x + row * k + column + j, k, std::min(tile, columns - j), depth, tile, panels + j * depth);
  }

  // products[rows, columns] (stride kBlock) (+)= x[row.., i..]^T x[row.., j..].
  void multiply(int64_t row, int64_t depth, int64_t i, int64_t rows, int64_t j, int64_t columns, float* scratch,
                bool add) const {
    float* left = scratch;
    float* right = left + kPanelFloats;
    float* products = right + kPanelFloats;
    pack(row, depth, i, rows, gemm.tile_rows, left);
    pack(row, depth, j, columns, gemm.tile_cols, right);
    for (int64_t a = 0; a < rows; a += gemm.tile_rows)
      for (int64_t b = 0; b < columns; b += gemm.tile_cols)
        gemm.tile(left + a * depth, right + b * depth, depth, products + a * kBlock + b, kBlock,
                  std::min(gemm.tile_rows, rows - a), std::min(gemm.tile_cols, columns - b), add);
  }

  void accumulate(int64_t begin, int64_t end, int64_t i, int64_t j, float* scratch) const {
    const int64_t rows = std::min(kBlock, k - i);
    const int64_t columns = std::min(kBlock, k - j);
    const float* products = scratch + 2 * kPanelFloats;
    for (int64_t row = begin; row < end; row += kFp32Rows) {
      const int64_t stop = std::min(end, row + kFp32Rows);
      for (int64_t r = row; r < stop; r += kDepth)
        multiply(r, std::min(kDepth, stop - r), i, rows, j, columns, scratch, r > row);
      for (int64_t a = 0; a < rows; ++a)
        for (int64_t b = 0; b < columns; ++b)
          gram[(i + a) * k + j + b] += static_cast<double>(products[a * kBlock + b]);
    }
    if (i != j) mirror(i, rows, j, columns);
  }

  // Small squares keep both sides of the transposition in L1.
  void mirror(int64_t i, int64_t rows, int64_t j, int64_t columns) const {
    constexpr int64_t kSquare = 8;
    for (int64_t a = 0; a < rows; a += kSquare)
      for (int64_t b = 0; b < columns; b += kSquare)
        for (int64_t bb = b; bb < std::min(columns, b + kSquare); ++bb)
          for (int64_t aa = a; aa < std::min(rows, a + kSquare); ++aa)
            gram[(j + bb) * k + i + aa] = gram[(i + aa) * k + j + bb];
  }
};

}  // namespace

Status accumulate_gram(Context& context, const TensorView& x, const TensorView& gram) {
  LUTRA_TRY(require_rank(x, 2, "accumulate_gram: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(gram, 2, "accumulate_gram: gram must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "accumulate_gram: x must be f32"));
  LUTRA_TRY(require_dtype(gram, Dtype::kF64, "accumulate_gram: gram must be f64"));
  const int64_t n = x.shape[0];
  const int64_t k = x.shape[1];
  LUTRA_TRY(require_equal(gram.shape[0], k, "accumulate_gram: rows of gram, against columns of x"));
  LUTRA_TRY(require_equal(gram.shape[1], k, "accumulate_gram: columns of gram, against columns of x"));
  const size_t slot_bytes = (2 * kPanelFloats + kBlock * kBlock) * sizeof(float);
  const size_t bytes = LaneScratch::bytes(context, slot_bytes);
  void* memory = context.scratch(bytes);
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory, slot_bytes);
  const GramBlock block{x.as<float>(), k, gram.as<double>(), gemm_kernels()};
  const int64_t blocks = ceil_div(k, kBlock);
  for (int64_t begin = 0; begin < n; begin += kRegionRows) {
    const bool ran = context.parallel(blocks * blocks, [&](int64_t part) {
      const int64_t i = part / blocks;
      const int64_t j = part % blocks;
      if (j < i) return;
      const LaneScratch::Slot slot(lanes);
      block.accumulate(begin, std::min(n, begin + kRegionRows), i * kBlock, j * kBlock, slot.as<float>());
    });
    if (!ran) return finished(false);
  }
  return ok_status();
}

}  // namespace lutra
