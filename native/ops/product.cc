#include "ops/product.h"

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "kernels/convert/convert.h"
#include "kernels/gemm/gemm.h"
#include "kernels/narrow_gemm/narrow_gemm.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kBlockK = 256;           // a panel of B of this depth stays in L1
constexpr int64_t kChunkRows = 768;        // rows of A packed at a time: a multiple of every tile
constexpr int64_t kFewRows = 16;           // up to here the rows of B are read in place
constexpr int64_t kInvariantRows = 256;    // the same, where a row's bits may not depend on how many there are
constexpr int64_t kPartBytes = 256 << 10;  // of B, in a part of the product with few rows

const float* offset(const RightOperand& b, int64_t row, int64_t kk) {
  return static_cast<const float*>(b.data) + row * b.stride + kk;
}
const uint16_t* offset16(const RightOperand& b, int64_t row, int64_t kk) {
  return static_cast<const uint16_t*>(b.data) + row * b.stride + kk;
}

// Few rows of A: B is streamed once, each group of its rows meets all rows of A while it is in L1.
Status product_of_few(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
                      const RightOperand& b, float* c, int64_t c_stride) {
  const GemmKernels& gemm = gemm_kernels();
  const NarrowGemmKernels& narrow = narrow_gemm_kernels();
  const bool wide = b.dtype == Dtype::kF32;
  const HalfDot half_dot = b.dtype == Dtype::kBF16 ? narrow.dot_bf16 : narrow.dot_f16;
  const int64_t group = wide ? gemm.dot_rows : narrow.dot_rows;
  const int64_t tokens = wide ? gemm.dot_tokens : narrow.dot_tokens;
  const int64_t row_bytes = k * static_cast<int64_t>(dtype_bytes(b.dtype));
  const int64_t part_rows = round_up(std::max<int64_t>(1, kPartBytes / row_bytes), group);
  return finished(context.parallel(ceil_div(m, part_rows), [&](int64_t part) {
    const int64_t end = std::min(m, (part + 1) * part_rows);
    for (int64_t r = part * part_rows; r < end; r += group)
      for (int64_t t = 0; t < n; t += tokens) {
        const int64_t rows = std::min(group, end - r);
        const int64_t count = std::min(tokens, n - t);
        float* y = c + t * c_stride + r;
        if (wide) {
          gemm.dot(a + t * a_stride, a_stride, count, offset(b, r, 0), b.stride, rows, k, y, c_stride);
        } else {
          half_dot(a + t * a_stride, a_stride, count, offset16(b, r, 0), b.stride, rows, k, y, c_stride);
        }
      }
  }));
}

// Up to kChunkRows rows of A against all of B.
class BlockedProduct {
 public:
  BlockedProduct(const RightOperand& b, int64_t m, int64_t k) : b_(b), m_(m), k_(k) {}

  Status run(Context& context, int64_t rows, const float* a, int64_t a_stride, float* c, int64_t c_stride) {
    const int64_t row_tiles = ceil_div(rows, gemm_.tile_rows);
    const int64_t padded = row_tiles * gemm_.tile_rows;
    const size_t packed_bytes = static_cast<size_t>(round_up(padded * k_, 16)) * sizeof(float);
    const size_t slot_bytes =
        static_cast<size_t>(2 * gemm_.tile_cols * kBlockK) * sizeof(float);  // a panel of B, and widened rows
    const size_t bytes = packed_bytes + LaneScratch::bytes(context, slot_bytes);
    auto* packed = static_cast<float*>(context.scratch(bytes));
    if (!packed) return out_of_memory(static_cast<int64_t>(bytes));
    if (!pack_left(context, rows, a, a_stride, packed)) return finished(false);

    LaneScratch lanes(context, reinterpret_cast<uint8_t*>(packed) + packed_bytes, slot_bytes);
    const int64_t column_blocks = ceil_div(m_, kGemmBlock);
    // Few column blocks: split the rows as well, so that every lane has a part.
    const int64_t splits = std::clamp<int64_t>(ceil_div(4 * context.lanes(), column_blocks), 1, row_tiles);
    const int64_t split_tiles = ceil_div(row_tiles, splits);
    return finished(context.parallel(column_blocks * splits, [&](int64_t part) {
      const LaneScratch::Slot slot(lanes);
      const int64_t first_tile = part % splits * split_tiles;
      const int64_t end_tile = std::min(row_tiles, first_tile + split_tiles);
      const int64_t column = part / splits * kGemmBlock;
      const int64_t end_column = std::min(m_, column + kGemmBlock);
      // A panel of B stays in L1 while all of A passes by.
      for (int64_t kk = 0; kk < k_; kk += kBlockK) {
        const int64_t depth = std::min(kBlockK, k_ - kk);
        for (int64_t j = column; j < end_column; j += gemm_.tile_cols) {
          const int64_t columns = std::min(gemm_.tile_cols, end_column - j);
          pack_right(j, columns, kk, depth, slot.as<float>());
          for (int64_t t = first_tile; t < end_tile; ++t) {
            const int64_t row = t * gemm_.tile_rows;
            gemm_.tile(packed + kk * padded + row * depth, gemm_.tile_rows, slot.as<float>(), gemm_.tile_cols, depth,
                       c + row * c_stride + j, c_stride, std::min(gemm_.tile_rows, rows - row), columns, kk > 0);
          }
        }
      }
    }));
  }

 private:
  // packed: for every k block the panels of all row tiles, one after the other.
  bool pack_left(Context& context, int64_t rows, const float* a, int64_t a_stride, float* packed) {
    const int64_t tiles = ceil_div(rows, gemm_.tile_rows);
    const int64_t padded = tiles * gemm_.tile_rows;
    return context.parallel(tiles, [&](int64_t t) {
      const int64_t row = t * gemm_.tile_rows;
      for (int64_t kk = 0; kk < k_; kk += kBlockK) {
        const int64_t depth = std::min(kBlockK, k_ - kk);
        gemm_.pack_rows(a + row * a_stride + kk, a_stride, std::min(gemm_.tile_rows, rows - row), depth,
                        gemm_.tile_rows, packed + kk * padded + row * depth);
      }
    });
  }

  // The panel of rows [row, row + live) of B; 16-bit rows are widened behind it first.
  void pack_right(int64_t row, int64_t live, int64_t kk, int64_t depth, float* panel) const {
    if (b_.k_major) return gemm_.pack_columns(offset(b_, kk, row), b_.stride, live, depth, gemm_.tile_cols, panel);
    if (b_.dtype == Dtype::kF32)
      return gemm_.pack_rows(offset(b_, row, kk), b_.stride, live, depth, gemm_.tile_cols, panel);
    const auto widen = b_.dtype == Dtype::kBF16 ? convert_.bf16_to_f32 : convert_.f16_to_f32;
    float* widened = panel + gemm_.tile_cols * depth;
    for (int64_t i = 0; i < live; ++i) widen(offset16(b_, row + i, kk), widened + i * depth, depth);
    gemm_.pack_rows(widened, depth, live, depth, gemm_.tile_cols, panel);
  }

  const GemmKernels& gemm_ = gemm_kernels();
  const ConvertKernels& convert_ = convert_kernels();
  const RightOperand& b_;
  int64_t m_;
  int64_t k_;
};

}  // namespace

Status product(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
               const RightOperand& b, float* c, int64_t c_stride, bool batch_invariant) {
  if (n == 0 || m == 0) return ok_status();
  if (k == 0) {
    for (int64_t t = 0; t < n; ++t) std::memset(c + t * c_stride, 0, static_cast<size_t>(m) * sizeof(float));
    return ok_status();
  }
  const int64_t few = batch_invariant ? kInvariantRows : n <= kFewRows ? n : 0;
  if (few > 0 && !b.k_major) {
    for (int64_t row = 0; row < n; row += few)
      LUTRA_TRY(product_of_few(context, std::min(few, n - row), m, k, a + row * a_stride, a_stride, b,
                               c + row * c_stride, c_stride));
    return ok_status();
  }
  BlockedProduct blocked(b, m, k);
  for (int64_t row = 0; row < n; row += kChunkRows)
    LUTRA_TRY(blocked.run(context, std::min(kChunkRows, n - row), a + row * a_stride, a_stride, c + row * c_stride,
                          c_stride));
  return ok_status();
}

}  // namespace lutra
