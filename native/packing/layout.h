// The packed-weight layout: where every bit, scale and offset of a quantized matrix lies.
//
// Weights:  w[m,k] = offset[m,g] + sum_b alpha[m,g,b] * bit_b(m,k),  g = k / groupSize            (LUT-GEMM)
//   kUniform: alpha_b = scale * 2^b; the code of a weight is sum_b 2^b * bit_b.
//   kPlanes:  every plane has its own alpha (binary-coding quantization).
//
// Rows are cut into tiles of 64; the last tile keeps its rows rounded up to 16 (`tile_rows`). With
// chunks = ceil(cols / 32) and groups = ceil(cols / groupSize):
//   codes    u32 [tile][chunk][plane][tile_rows]   bit i of a word is weight (row, 32 * chunk + i)
//   scales       [tile][group][tile_rows]          kUniform
//   alphas       [tile][group][plane][tile_rows]   kPlanes
//   offsets      [tile][group][tile_rows]
// Padding (columns past `cols`, rows past `rows`) holds zero bits, zero scales, zero offsets.
//
// Offsets:
//   kNone      nothing stored; the grid is centred: kUniform has zero code 2^(bits-1), offset = -scale * 2^(bits-1);
//              kPlanes has offset = -sum_b alpha_b / 2 (codes -1/+1 with half the alpha).
//   kZeroCode  u8 zero code z per group, offset = -scale * z; kUniform only.
//   kReal      the offset itself, f16, bf16 or f32.
#pragma once

#include <cstdint>

#include "core/checked.h"
#include "core/status.h"
#include "core/tensor_view.h"

namespace lutra {

enum class WeightKind : uint8_t { kUniform, kPlanes };
enum class OffsetKind : uint8_t { kNone, kZeroCode, kReal };

struct PackedLayout {
  static constexpr int64_t kTileRows = 64;
  static constexpr int64_t kRowStep = 16;  // the last tile's rows are a multiple of this
  static constexpr int64_t kChunkCols = 32;
  static constexpr int kMaxPlanes = 8;  // format and reference; kernels take 2 to 4

  int64_t rows = 0;        // out features, m
  int64_t cols = 0;        // in features, k
  int64_t group_size = 0;  // 16, or a multiple of 32, or equal to cols (one group a row)
  int bits = 0;
  WeightKind kind = WeightKind::kUniform;
  OffsetKind offset_kind = OffsetKind::kNone;
  Dtype scale_dtype = Dtype::kF16;   // scales or alphas: f16, bf16 or f32
  Dtype offset_dtype = Dtype::kF16;  // read where offset_kind is kReal

  int64_t tiles() const { return ceil_div(rows, kTileRows); }
  int64_t chunks() const { return ceil_div(cols, kChunkCols); }
  int64_t groups() const { return ceil_div(cols, group_size); }
  int64_t padded_rows() const { return round_up(rows, kRowStep); }
  // Rows that tile t stores: 64, or for the last tile 16, 32, 48 or 64.
  int64_t tile_rows(int64_t t) const {
    const int64_t left = padded_rows() - t * kTileRows;
    return left < kTileRows ? left : kTileRows;
  }
  int scale_planes() const { return kind == WeightKind::kPlanes ? bits : 1; }

  // Element offsets of tile t in each array. Every tile before it is a full one.
  int64_t codes_at(int64_t t) const { return t * kTileRows * chunks() * bits; }
  int64_t scales_at(int64_t t) const { return t * kTileRows * groups() * scale_planes(); }
  int64_t offsets_at(int64_t t) const { return t * kTileRows * groups(); }

  int64_t codes_words() const { return padded_rows() * chunks() * bits; }
  int64_t scales_elements() const { return padded_rows() * groups() * scale_planes(); }
  int64_t offsets_elements() const { return offset_kind == OffsetKind::kNone ? 0 : padded_rows() * groups(); }
};

// Refuses every layout whose numbers are out of range or whose sizes would overflow.
Status check_layout(const PackedLayout& layout);

// A low-rank pair beside a packed matrix: w[m,k] += sum_j b[m,j] * a[j,k], both row-major. a and b are f16 or bf16, or
// i8 with one f32 scale a row.
struct SubBranch {
  int64_t rank = 0;  // 0: there is none
  Dtype dtype = Dtype::kF16;
  const void* a = nullptr;          // [rank, cols]
  const void* b = nullptr;          // [rows, rank]
  const float* a_scales = nullptr;  // [rank], i8 only
  const float* b_scales = nullptr;  // [rows], i8 only
};

// A packed matrix in memory: the layout and its arrays (offsets null for kNone). Owns nothing.
struct PackedView {
  PackedLayout layout;
  const uint32_t* codes = nullptr;
  const void* scales = nullptr;
  const void* offsets = nullptr;
  SubBranch sub_branch;
};

// Refuses a pair whose rank is over the rows or columns, of another element type, or without its memory.
Status check_sub_branch(const PackedLayout& layout, const SubBranch& sub_branch);

}  // namespace lutra
