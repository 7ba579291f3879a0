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

template <typename T>
const T* element(const RightOperand& b, int64_t row, int64_t kk) {
  return static_cast<const T*>(b.data) + row * b.stride + kk;
}

// The kernels that read rows of B as they are stored.
struct RowsInPlace {
  const RightOperand& b;
  const GemmKernels& gemm = gemm_kernels();
  const NarrowGemmKernels& narrow = narrow_gemm_kernels();

  bool wide() const { return !b.row_scales && b.dtype == Dtype::kF32; }
  int64_t group() const { return wide() ? gemm.dot_rows : narrow.dot_rows; }
  int64_t tokens() const { return wide() ? gemm.dot_tokens : narrow.dot_tokens; }
  int64_t element_bytes() const { return b.row_scales ? 1 : static_cast<int64_t>(dtype_bytes(b.dtype)); }

  // c[t * c_stride + r - row] for `count` rows of A and the rows [row, row + rows) of B.
  void dot(const float* a, int64_t a_stride, int64_t count, int64_t row, int64_t rows, int64_t k, float* c,
           int64_t c_stride) const {
    if (b.row_scales)
      return narrow.dot_i8(a, a_stride, count, element<int8_t>(b, row, 0), b.stride, b.row_scales + row, rows, k, c,
                           c_stride);
    if (wide()) return gemm.dot(a, a_stride, count, element<float>(b, row, 0), b.stride, rows, k, c, c_stride);
    const HalfDot dot16 = b.dtype == Dtype::kBF16 ? narrow.dot_bf16 : narrow.dot_f16;
    dot16(a, a_stride, count, element<uint16_t>(b, row, 0), b.stride, rows, k, c, c_stride);
  }
};

// Few rows of A: B is streamed once, each group of its rows meets all rows of A while it is in L1.
Status product_of_few(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
                      const RightOperand& b, float* c, int64_t c_stride) {
  const RowsInPlace in_place{b};
  const int64_t group = in_place.group();
  const int64_t part_rows = round_up(std::max<int64_t>(1, kPartBytes / (k * in_place.element_bytes())), group);
  return finished(context.parallel_in_turns(ceil_div(m, part_rows), n * part_rows * k, [&](int64_t part) {
    const int64_t end = std::min(m, (part + 1) * part_rows);
    for (int64_t r = part * part_rows; r < end; r += group)
      for (int64_t t = 0; t < n; t += in_place.tokens())
        in_place.dot(a + t * a_stride, a_stride, std::min(in_place.tokens(), n - t), r, std::min(group, end - r), k,
                     c + t * c_stride + r, c_stride);
  }));
}

// Rows of k elements, row-major with `stride` from row to row; or, k_major, k rows that hold an element of each.
struct LeftOperand {
  const float* data = nullptr;
  int64_t stride = 0;
  bool k_major = false;

  const float* element(int64_t row, int64_t kk) const {
    return k_major ? data + kk * stride + row : data + row * stride + kk;
  }
};

// Up to kChunkRows rows of A, from first_row on, against all of B.
class BlockedProduct {
 public:
  BlockedProduct(const LeftOperand& a, const RightOperand& b, int64_t m, int64_t k) : a_(a), b_(b), m_(m), k_(k) {}

  Status run(Context& context, int64_t first_row, int64_t rows, float* c, int64_t c_stride) {
    const int64_t row_tiles = ceil_div(rows, gemm_.tile_rows);
    const int64_t padded = row_tiles * gemm_.tile_rows;
    const size_t packed_bytes = static_cast<size_t>(round_up(padded * k_, 16)) * sizeof(float);
    const size_t slot_bytes = static_cast<size_t>(panel_floats() + padded * kGemmBlock) * sizeof(float);
    const size_t bytes = packed_bytes + LaneScratch::bytes(context, slot_bytes);
    auto* packed = static_cast<float*>(context.scratch(bytes));
    if (!packed) return out_of_memory(static_cast<int64_t>(bytes));
    if (!pack_left(context, first_row, rows, packed)) return finished(false);

    LaneScratch lanes(context, reinterpret_cast<uint8_t*>(packed) + packed_bytes, slot_bytes);
    const int64_t column_blocks = ceil_div(m_, kGemmBlock);
    // Few column blocks, or long ones: split the rows as well, so that every lane has a part and none takes long.
    const int64_t block_products = padded * kGemmBlock * k_;
    const int64_t wanted = std::max(ceil_div(4 * context.lanes(), column_blocks), block_products / kPartProducts);
    const int64_t split_tiles = ceil_div(row_tiles, std::clamp<int64_t>(wanted, 1, row_tiles));
    const int64_t splits = ceil_div(row_tiles, split_tiles);
    return finished(context.parallel_in_turns(column_blocks * splits, block_products / splits, [&](int64_t part) {
      const LaneScratch::Slot slot(lanes);
      const int64_t first_tile = part % splits * split_tiles;
      const int64_t end_tile = std::min(row_tiles, first_tile + split_tiles);
      const int64_t column = part / splits * kGemmBlock;
      const int64_t end_column = std::min(m_, column + kGemmBlock);
      const Tiles tiles{first_tile, end_tile, column, end_column, slot.as<float>()};
      for (int64_t kk = 0; kk < k_; kk += kBlockK) multiply(tiles, packed, rows, kk, c, c_stride);
    }));
  }

 private:
  // The tiles of C that a part computes, and its scratch: a panel of B, widened rows, then the block of C.
  struct Tiles {
    int64_t first, end;  // in rows of tiles
    int64_t column, end_column;
    float* scratch;
  };

  // One block of k. A panel of B stays in L1 while all of A passes by; tiles of C that another block of k will add to
  // wait side by side in the scratch, where their rows do not fight for the same sets of the cache as in C itself.
  void multiply(const Tiles& part, const float* packed, int64_t rows, int64_t kk, float* c, int64_t c_stride) const {
    const int64_t padded = round_up(rows, gemm_.tile_rows);
    const int64_t depth = std::min(kBlockK, k_ - kk);
    float* waiting = part.scratch + panel_floats();
    for (int64_t j = part.column; j < part.end_column; j += gemm_.tile_cols) {
      const int64_t columns = std::min(gemm_.tile_cols, part.end_column - j);
      pack_right(j, columns, kk, depth, part.scratch);
      for (int64_t t = part.first; t < part.end; ++t, waiting += gemm_.tile_rows * gemm_.tile_cols) {
        const int64_t row = t * gemm_.tile_rows;
        const int64_t live = std::min(gemm_.tile_rows, rows - row);
        float* target = c + row * c_stride + j;
        const bool whole = depth == k_;
        const bool last = kk + depth == k_;
        // The lines of C come while their tile is summed for the last time.
        if (last)
          for (int64_t i = 0; i < live; ++i)
            for (int64_t line = 0; line < columns; line += 16) __builtin_prefetch(target + i * c_stride + line, 1);
        gemm_.tile(packed + kk * padded + row * depth, gemm_.tile_rows, part.scratch, gemm_.tile_cols, depth,
                   whole ? target : waiting, whole ? c_stride : gemm_.tile_cols, live, columns, kk > 0);
        if (whole || !last) continue;
        for (int64_t i = 0; i < live; ++i)
          std::memcpy(target + i * c_stride, waiting + i * gemm_.tile_cols,
                      static_cast<size_t>(columns) * sizeof(float));
      }
    }
  }

  int64_t panel_floats() const { return 2 * gemm_.tile_cols * kBlockK; }

  // packed: for every k block the panels of all row tiles, one after the other.
  bool pack_left(Context& context, int64_t first_row, int64_t rows, float* packed) {
    const int64_t tiles = ceil_div(rows, gemm_.tile_rows);
    const int64_t padded = tiles * gemm_.tile_rows;
    const auto pack = a_.k_major ? gemm_.pack_columns : gemm_.pack_rows;
    return context.parallel(tiles, [&](int64_t t) {
      const int64_t row = t * gemm_.tile_rows;
      for (int64_t kk = 0; kk < k_; kk += kBlockK) {
        const int64_t depth = std::min(kBlockK, k_ - kk);
        pack(a_.element(first_row + row, kk), a_.stride, std::min(gemm_.tile_rows, rows - row), depth, gemm_.tile_rows,
             packed + kk * padded + row * depth);
      }
    });
  }

  // The panel of rows [row, row + live) of B; narrow rows are widened behind it first.
  void pack_right(int64_t row, int64_t live, int64_t kk, int64_t depth, float* panel) const {
    if (b_.k_major)
      return gemm_.pack_columns(element<float>(b_, kk, row), b_.stride, live, depth, gemm_.tile_cols, panel);
    if (!b_.row_scales && b_.dtype == Dtype::kF32)
      return gemm_.pack_rows(element<float>(b_, row, kk), b_.stride, live, depth, gemm_.tile_cols, panel);
    float* widened = panel + gemm_.tile_cols * depth;
    for (int64_t i = 0; i < live; ++i) widen(row + i, kk, depth, widened + i * depth);
    gemm_.pack_rows(widened, depth, live, depth, gemm_.tile_cols, panel);
  }

  void widen(int64_t row, int64_t kk, int64_t depth, float* y) const {
    if (b_.row_scales) return narrow_.widen_i8(element<int8_t>(b_, row, kk), b_.row_scales[row], y, depth);
    const auto widen16 = b_.dtype == Dtype::kBF16 ? convert_.bf16_to_f32 : convert_.f16_to_f32;
    widen16(element<uint16_t>(b_, row, kk), y, depth);
  }

  const GemmKernels& gemm_ = gemm_kernels();
  const NarrowGemmKernels& narrow_ = narrow_gemm_kernels();
  const ConvertKernels& convert_ = convert_kernels();
  const LeftOperand& a_;
  const RightOperand& b_;
  int64_t m_;
  int64_t k_;
};

Status blocked_product(Context& context, int64_t n, int64_t m, int64_t k, const LeftOperand& a, const RightOperand& b,
                       float* c, int64_t c_stride) {
  BlockedProduct blocked(a, b, m, k);
  for (int64_t row = 0; row < n; row += kChunkRows)
    LUTRA_TRY(blocked.run(context, row, std::min(kChunkRows, n - row), c + row * c_stride, c_stride));
  return ok_status();
}

void zero_rows(int64_t n, int64_t m, float* c, int64_t c_stride) {
  for (int64_t t = 0; t < n; ++t) std::memset(c + t * c_stride, 0, static_cast<size_t>(m) * sizeof(float));
}

}  // namespace

Status product(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
               const RightOperand& b, float* c, int64_t c_stride, bool batch_invariant) {
  if (n == 0 || m == 0) return ok_status();
  if (k == 0) {
    zero_rows(n, m, c, c_stride);
    return ok_status();
  }
  const int64_t few = batch_invariant ? kInvariantRows : n <= kFewRows ? n : 0;
  if (few > 0 && !b.k_major) {
    for (int64_t row = 0; row < n; row += few)
      LUTRA_TRY(product_of_few(context, std::min(few, n - row), m, k, a + row * a_stride, a_stride, b,
                               c + row * c_stride, c_stride));
    return ok_status();
  }
  return blocked_product(context, n, m, k, {a, a_stride}, b, c, c_stride);
}

Status product_of_columns(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
                          const float* b, int64_t b_stride, float* c, int64_t c_stride) {
  if (n == 0 || m == 0) return ok_status();
  if (k == 0) {
    zero_rows(n, m, c, c_stride);
    return ok_status();
  }
  const RightOperand right{.data = b, .stride = b_stride, .k_major = true};
  return blocked_product(context, n, m, k, {a, a_stride, true}, right, c, c_stride);
}

}  // namespace lutra
