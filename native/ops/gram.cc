// X^T X for calibration. A part owns one block of the upper triangle and carries it through all rows of x; the block
// below the diagonal is its mirror image.
#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "ops/linear.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kPanel = kGemmBlock;  // columns of x in one panel
constexpr int64_t kBlock = 2 * kPanel;  // rows and columns of a part's block
constexpr int64_t kFp32Rows = 512;      // rows of x summed in fp32
constexpr int64_t kRegionRows = 2048;   // rows of x packed at a time, and between two looks at the cancel token

// `count` rows of x, copied into panels of kPanel columns: panels[c / kPanel][row][kPanel]. As x lies, every row of a
// panel would be a page of its own, and all of them the same few sets of the cache.
struct PackedRows {
  const float* panels;
  int64_t count;
  int64_t k;
  const GemmKernels& gemm;

  const float* at(int64_t column, int64_t row) const {
    return panels + (column / kPanel * count + row) * kPanel + column % kPanel;
  }

  // gram[i .., j ..] += x^T x over all packed rows, one block.
  void accumulate(int64_t i, int64_t j, double* gram) const {
    const int64_t i_end = std::min(k, i + kBlock);
    const int64_t j_end = std::min(k, j + kBlock);
    for (int64_t row = 0; row < count; row += kFp32Rows)
      for (int64_t b = j; b < j_end; b += gemm.tile_cols)
        for (int64_t a = i; a < i_end; a += gemm.tile_rows)
          gemm.tile_to64(at(a, row), kPanel, at(b, row), kPanel, std::min(kFp32Rows, count - row), gram + a * k + b, k,
                         std::min(gemm.tile_rows, i_end - a), std::min(gemm.tile_cols, j_end - b));
  }
};

// gram[j .., i ..] = gram[i .., j ..]^T. Small squares keep both sides of the transposition in L1.
void mirror(int64_t i, int64_t j, int64_t k, double* gram) {
  constexpr int64_t kSquare = 8;
  const int64_t i_end = std::min(k, i + kBlock);
  const int64_t j_end = std::min(k, j + kBlock);
  for (int64_t a = i; a < i_end; a += kSquare)
    for (int64_t b = j; b < j_end; b += kSquare)
      for (int64_t row = b; row < std::min(j_end, b + kSquare); ++row)
        for (int64_t column = a; column < std::min(i_end, a + kSquare); ++column)
          gram[row * k + column] = gram[column * k + row];
}

Status accumulate_rows(Context& context, const float* x, int64_t count, int64_t k, double* gram) {
  const GemmKernels& gemm = gemm_kernels();
  const int64_t panels = ceil_div(k, kPanel);
  const size_t bytes = static_cast<size_t>(panels * count * kPanel) * sizeof(float);
  auto* packed = static_cast<float*>(context.scratch(bytes));
  if (!packed) return out_of_memory(static_cast<int64_t>(bytes));
  const bool ran = context.parallel(panels, [&](int64_t p) {
    gemm.pack_columns(x + p * kPanel, k, std::min(kPanel, k - p * kPanel), count, kPanel, packed + p * count * kPanel);
  });
  if (!ran) return finished(false);
  const PackedRows rows{packed, count, k, gemm};
  const int64_t blocks = ceil_div(k, kBlock);
  return finished(context.parallel(blocks * blocks, [&](int64_t part) {
    const int64_t i = part / blocks * kBlock;
    const int64_t j = part % blocks * kBlock;
    if (j < i) return;
    rows.accumulate(i, j, gram);
    if (i != j) mirror(i, j, k, gram);
  }));
}

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
  LUTRA_TRY(require_apart(gram, x, "accumulate_gram: gram may not overlap x"));
  for (int64_t row = 0; row < n; row += kRegionRows)
    LUTRA_TRY(accumulate_rows(context, x.as<float>() + row * k, std::min(kRegionRows, n - row), k, gram.as<double>()));
  return ok_status();
}

}  // namespace lutra
