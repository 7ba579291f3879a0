// The way in and out of the packed layout.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "ops/lut_gemm_with.h"
#include "ops/operand.h"
#include "ops/sub_branch.h"

namespace lutra {

namespace {

constexpr int64_t kTile = PackedLayout::kTileRows;
constexpr int64_t kChunk = PackedLayout::kChunkCols;

bool is_matrix(const TensorView& view, int64_t rows, int64_t cols) {
  return view.rank == 2 && view.shape[0] == rows && view.shape[1] == cols && view.data;
}

Status check_codes(const PackedLayout& layout, const TensorView& codes, const TensorView& words) {
  LUTRA_TRY(check_layout(layout));
  if (codes.dtype != Dtype::kU8) return error(Code::kDtype, "codes must be u8");
  if (words.dtype != Dtype::kU8) return error(Code::kDtype, "packed codes must be u8");
  if (!is_matrix(codes, layout.rows, layout.cols)) return error(Code::kShape, "codes must be [rows, cols]");
  if (words.elements() != 4 * layout.codes_words() || !words.data)
    return error(Code::kShape, "packed codes have the wrong length", words.elements(), 4 * layout.codes_words());
  if (reinterpret_cast<uintptr_t>(words.data) % alignof(uint32_t) != 0)
    return error(Code::kOption, "packed codes must be aligned to 4 bytes");
  return ok_status();
}

// The words of one chunk of one row. Returns the union of its codes, which shows a code that is too large.
unsigned pack_chunk(const uint8_t* codes, int64_t count, int bits, uint32_t* words, int64_t stride) {
  uint32_t planes[PackedLayout::kMaxPlanes] = {};
  unsigned all = 0;
  for (int64_t i = 0; i < count; ++i) {
    all |= codes[i];
    for (int b = 0; b < bits; ++b) planes[b] |= static_cast<uint32_t>((codes[i] >> b) & 1) << i;
  }
  for (int b = 0; b < bits; ++b) words[b * stride] = planes[b];
  return all;
}

// Copies values between logical order [rows, groups, planes] and tile order, one element of T at a time.
template <typename T>
struct GroupCopy {
  const PackedLayout& layout;
  int planes;

  T* tiled_at(T* tiled, int64_t tile, int64_t group, int plane, int64_t row) const {
    const int64_t base = tile * kTile * layout.groups() * planes;
    return tiled + base + (group * planes + plane) * layout.tile_rows(tile) + row;
  }
  template <typename Body>
  void each(int64_t tile, T* tiled, Body&& body) const {
    for (int64_t g = 0; g < layout.groups(); ++g)
      for (int b = 0; b < planes; ++b)
        for (int64_t r = 0; r < layout.tile_rows(tile); ++r) {
          const int64_t row = tile * kTile + r;
          body(tiled_at(tiled, tile, g, b, r), row < layout.rows, (row * layout.groups() + g) * planes + b);
        }
  }
};

template <typename T>
bool copy_values(Context& context, const PackedLayout& layout, int planes, T* logical, T* tiled, bool pack) {
  const GroupCopy<T> copy{layout, planes};
  return context.parallel(layout.tiles(), [&](int64_t tile) {
    copy.each(tile, tiled, [&](T* stored, bool exists, int64_t at) {
      if (pack) *stored = exists ? logical[at] : T{0};
      if (!pack && exists) logical[at] = *stored;
    });
  });
}

Status move_values(Context& context, const PackedLayout& layout, int planes, const TensorView& logical,
                   const TensorView& tiled, bool pack) {
  LUTRA_TRY(check_layout(layout));
  if (planes < 1 || planes > PackedLayout::kMaxPlanes) return error(Code::kOption, "planes out of range", planes);
  if (logical.dtype != tiled.dtype) return error(Code::kDtype, "group values must keep their element type");
  const bool shaped = logical.rank >= 2 && logical.shape[0] == layout.rows && logical.shape[1] == layout.groups();
  if (!shaped || !logical.data || logical.elements() != layout.rows * layout.groups() * planes)
    return error(Code::kShape, "group values must be [rows, groups] or [rows, groups, planes]", logical.elements(),
                 layout.rows * layout.groups() * planes);
  const int64_t stored = layout.padded_rows() * layout.groups() * planes;
  if (tiled.elements() != stored || !tiled.data)
    return error(Code::kShape, "tiled group values have the wrong length", tiled.elements(), stored);
  bool done = false;
  switch (dtype_bytes(logical.dtype)) {
    case 1:
      done = copy_values(context, layout, planes, logical.as<uint8_t>(), tiled.as<uint8_t>(), pack);
      break;
    case 2:
      done = copy_values(context, layout, planes, logical.as<uint16_t>(), tiled.as<uint16_t>(), pack);
      break;
    case 4:
      done = copy_values(context, layout, planes, logical.as<uint32_t>(), tiled.as<uint32_t>(), pack);
      break;
    default:
      return error(Code::kDtype, "group values must be u8, f16, bf16 or f32");
  }
  return finished(done);
}

}  // namespace

Status pack_codes(Context& context, const PackedLayout& layout, const TensorView& codes, const TensorView& words) {
  LUTRA_TRY(check_codes(layout, codes, words));
  std::atomic<unsigned> all{0};
  const bool done = context.parallel(layout.tiles(), [&](int64_t t) {
    const int64_t stride = layout.tile_rows(t);
    uint32_t* tile = words.as<uint32_t>() + layout.codes_at(t);
    std::memset(tile, 0, static_cast<size_t>(stride * layout.chunks() * layout.bits) * sizeof(uint32_t));
    unsigned seen = 0;
    for (int64_t r = 0; r < std::min(stride, layout.rows - t * kTile); ++r)
      for (int64_t c = 0; c < layout.chunks(); ++c) {
        const uint8_t* source = codes.as<uint8_t>() + (t * kTile + r) * layout.cols + c * kChunk;
        seen |= pack_chunk(source, std::min(kChunk, layout.cols - c * kChunk), layout.bits,
                           tile + c * layout.bits * stride + r, stride);
      }
    all.fetch_or(seen, std::memory_order_relaxed);
  });
  if (!done) return finished(false);
  const int largest = (1 << layout.bits) - 1;
  if (all.load() > static_cast<unsigned>(largest))
    return error(Code::kOption, "a code is too large", all.load(), largest);
  return ok_status();
}

Status unpack_codes(Context& context, const PackedLayout& layout, const TensorView& words, const TensorView& codes) {
  LUTRA_TRY(check_codes(layout, codes, words));
  const bool done = context.parallel(layout.tiles(), [&](int64_t t) {
    const int64_t stride = layout.tile_rows(t);
    const uint32_t* tile = words.as<uint32_t>() + layout.codes_at(t);
    for (int64_t r = 0; r < std::min(stride, layout.rows - t * kTile); ++r)
      for (int64_t k = 0; k < layout.cols; ++k) {
        const uint32_t* word = tile + k / kChunk * layout.bits * stride + r;
        unsigned code = 0;
        for (int b = 0; b < layout.bits; ++b) code |= ((word[b * stride] >> (k % kChunk)) & 1u) << b;
        codes.as<uint8_t>()[(t * kTile + r) * layout.cols + k] = static_cast<uint8_t>(code);
      }
  });
  return finished(done);
}

Status pack_group_values(Context& context, const PackedLayout& layout, int planes, const TensorView& logical,
                         const TensorView& tiled) {
  return move_values(context, layout, planes, logical, tiled, true);
}

Status unpack_group_values(Context& context, const PackedLayout& layout, int planes, const TensorView& tiled,
                           const TensorView& logical) {
  return move_values(context, layout, planes, logical, tiled, false);
}

Status dequantize(Context& context, const PackedView& weights, const TensorView& w) {
  LUTRA_TRY(check_weights(weights));
  const PackedLayout& layout = weights.layout;
  if (w.dtype != Dtype::kF32) return error(Code::kDtype, "w must be f32");
  if (!is_matrix(w, layout.rows, layout.cols)) return error(Code::kShape, "w must be [rows, cols]");
  const bool done = context.parallel(layout.tiles(), [&](int64_t t) {
    const LutTile tile = lut_tile(weights, t);
    double values[kLutBlock];
    for (int64_t r = 0; r < tile.rows; ++r)
      for (int64_t k = 0; k < tile.cols; k += kLutBlock) {
        const int64_t end = std::min(tile.cols, k + kLutBlock);
        lut_gemm_reference_weights(tile, r, k, end, values);
        sub_branch_add(weights.sub_branch, t * kTile + r, k, end, tile.cols, values);
        float* out = w.as<float>() + (t * kTile + r) * layout.cols + k;
        for (int64_t i = 0; i < end - k; ++i) out[i] = static_cast<float>(values[i]);
      }
  });
  return finished(done);
}

}  // namespace lutra
