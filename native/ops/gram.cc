// X^T X for calibration. A part owns one block of the upper triangle: it sums it over the packed rows of x in a
// compact block in L2, and adds that to the block of the result and to its mirror image below the diagonal. In the
// result itself the rows of a tile would lie whole pages apart, often in the same few sets of every cache.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/gemm/gemm.h"
#include "ops/lane_scratch.h"
#include "ops/linear.h"
#include "ops/matrix64.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kPanel = kGemmBlock;  // columns of x in one panel
constexpr int64_t kBlock = 2 * kPanel;  // rows and columns of a part's block
constexpr int64_t kFp32Rows = 256;      // rows of x summed in fp32; a panel of so many stays in L1
constexpr int64_t kPackRows = 32;       // rows of x packed by a part: divides kFp32Rows
constexpr int64_t kRegionRows = 2048;   // rows of x packed at a time

// `count` rows of x as panels of both operands, kFp32Rows after kFp32Rows. As x lies, every row of a panel would be a
// page of its own, and all of them the same few sets of the cache.
struct PackedRows {
  float* left;   // panels of tile_rows columns of x
  float* right;  // and of tile_cols
  int64_t count;
  int64_t k;
  const GemmKernels& gemm;

  static int64_t padded(int64_t k) { return round_up(k, kPanel); }
  int64_t depth(int64_t row) const { return std::min(kFp32Rows, count - row); }
  // The panel that begins with `column`, of the rows from `row`, a multiple of kFp32Rows.
  int64_t at(int64_t column, int64_t row) const { return row * padded(k) + column * depth(row); }

  // Packs the rows [row, row + kPackRows) of x, all of whose columns come in order through L1.
  void pack(const float* x, int64_t row) const {
    const int64_t chunk = row / kFp32Rows * kFp32Rows;
    const int64_t rows = std::min(kPackRows, count - row);
    for (int64_t column = 0; column < k; column += kPanel)
      for (const auto& [panels, tile] : {std::pair{right, gemm.tile_cols}, std::pair{left, gemm.tile_rows}})
        for (int64_t c = column; c < column + kPanel; c += tile)
          gemm.pack_columns(x + row * k + c, k, std::clamp<int64_t>(k - c, 0, tile), rows, tile,
                            panels + at(c, chunk) + (row - chunk) * tile);
  }
};

// Rows i .. and columns j .. of the upper triangle, tile after tile, each tile row-major and whole.
class Block {
 public:
  static constexpr size_t kBytes = static_cast<size_t>(kBlock * kBlock) * sizeof(double);

  Block(const PackedRows& rows, int64_t i, int64_t j, double* sums, const Matrix64& gram)
      : rows_(rows),
        i_(i),
        j_(j),
        i_end_(std::min(rows.k, i + kBlock)),
        j_end_(std::min(rows.k, j + kBlock)),
        sums_(sums),
        gram_(gram) {}

  // gram += x^T x over all packed rows. Tiles below the diagonal are left out.
  void accumulate() const {
    std::memset(sums_, 0, kBytes);
    for (int64_t row = 0; row < rows_.count; row += kFp32Rows) {
      const bool last = row + kFp32Rows >= rows_.count;
      for (int64_t b = j_; b < j_end_; b += tile_cols_)
        for (int64_t a = i_; a < std::min(i_end_, b + tile_cols_); a += tile_rows_) {
          if (last) fetch(a, b);
          rows_.gemm.tile_to64(rows_.left + rows_.at(a, row), rows_.right + rows_.at(b, row), rows_.depth(row),
                               tile(a, b));
          if (last) finish(a, b);
        }
    }
  }

 private:
  int64_t rows_of(int64_t a) const { return std::min(tile_rows_, i_end_ - a); }
  int64_t columns_of(int64_t b) const { return std::min(tile_cols_, j_end_ - b); }

  // The lines of the result that finish() will touch come while the tile is summed for the last time. Inlined by force:
  // GCC takes a function that only prefetches for one without effects.
  __attribute__((always_inline)) inline void fetch(int64_t a, int64_t b) const {
    constexpr int64_t kLine = 64 / sizeof(double);
    for (int64_t r = 0; r < rows_of(a); ++r)
      for (int64_t c = 0; c < columns_of(b); c += kLine) __builtin_prefetch(gram_.row(a + r) + b + c, 1, 2);
    if (!mirrored_) return;
    for (int64_t c = 0; c < columns_of(b); ++c)
      for (int64_t r = 0; r < rows_of(a); r += kLine) __builtin_prefetch(gram_.row(b + c) + a + r, 1, 2);
  }

  // Adds a tile's sums to the result on and above the diagonal, and in a square copies what is then there to its mirror
  // image.
  void finish(int64_t a, int64_t b) const {
    // Locals: a store of a double cannot change them, but for the members the compiler cannot know it.
    const int64_t stride = tile_cols_;
    const int64_t rows = rows_of(a);
    const int64_t columns = columns_of(b);
    double* const sums = tile(a, b);
    for (int64_t r = 0; r < rows; ++r) {
      double* const sum = sums + r * stride;
      double* const target = gram_.row(a + r) + b;
      for (int64_t c = std::max<int64_t>(0, a + r - b); c < columns; ++c) sum[c] += target[c];
      for (int64_t c = std::max<int64_t>(0, a + r - b); c < columns; ++c) target[c] = sum[c];
    }
    if (!mirrored_) return;
    for (int64_t c = std::max<int64_t>(0, a - b + 1); c < columns; ++c) {
      double* const target = gram_.row(b + c) + a;
      const int64_t count = std::min(rows, b + c - a);
      for (int64_t r = 0; r < count; ++r) target[r] = sums[r * stride + c];
    }
  }

  double* tile(int64_t a, int64_t b) const {
    return sums_ + ((b - j_) / tile_cols_ * (kBlock / tile_rows_) + (a - i_) / tile_rows_) * tile_rows_ * tile_cols_;
  }

  const PackedRows& rows_;
  const int64_t tile_rows_ = rows_.gemm.tile_rows;
  const int64_t tile_cols_ = rows_.gemm.tile_cols;
  int64_t i_, j_, i_end_, j_end_;
  double* sums_;
  const Matrix64& gram_;
  const bool mirrored_ = gram_.growth == 0;  // a whole square
};

Status accumulate_rows(Context& context, const float* x, int64_t count, const Matrix64& gram) {
  const int64_t k = gram.rows;
  const int64_t side = PackedRows::padded(k) * count;  // elements packed for one operand
  const size_t packed_bytes = static_cast<size_t>(2 * side) * sizeof(float);
  const size_t bytes = packed_bytes + LaneScratch::bytes(context, Block::kBytes);
  auto* packed = static_cast<float*>(context.scratch(bytes));
  if (!packed) return out_of_memory(static_cast<int64_t>(bytes));
  const PackedRows rows{packed, packed + side, count, k, gemm_kernels()};
  if (!context.parallel(ceil_div(count, kPackRows), [&](int64_t part) { rows.pack(x, part * kPackRows); }))
    return finished(false);
  LaneScratch lanes(context, reinterpret_cast<uint8_t*>(packed) + packed_bytes, Block::kBytes);
  const int64_t blocks = ceil_div(k, kBlock);
  return finished(context.parallel_in_turns(blocks * (blocks + 1) / 2, count * kBlock * kBlock, [&](int64_t part) {
    // By diagonals, the main one last: its blocks are half the work, and lanes that end together waste less.
    int64_t length = 1;
    for (; part >= length; ++length) part -= length;
    const LaneScratch::Slot slot(lanes);
    Block(rows, part * kBlock, (part + blocks - length) * kBlock, slot.as<double>(), gram).accumulate();
  }));
}

}  // namespace

Status accumulate_gram(Context& context, const TensorView& x, const TensorView& gram) {
  LUTRA_TRY(require_rank(x, 2, "accumulate_gram: x must have 2 dimensions"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "accumulate_gram: x must be f32"));
  const int64_t n = x.shape[0];
  const int64_t k = x.shape[1];
  LUTRA_TRY(require_triangle(gram, k, "accumulate_gram: gram must be f64, rows and columns as x has columns"));
  LUTRA_TRY(require_apart(gram, x, "accumulate_gram: gram may not overlap x"));
  for (int64_t row = 0; row < n; row += kRegionRows)
    LUTRA_TRY(accumulate_rows(context, x.as<float>() + row * k, std::min(kRegionRows, n - row), upper_triangle(gram)));
  return ok_status();
}

}  // namespace lutra
