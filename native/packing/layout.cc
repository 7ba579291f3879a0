#include "packing/layout.h"

namespace lutra {

Status check_layout(const PackedLayout& layout) {
  // Products of three checked factors below stay under 2^63 with these two limits.
  constexpr int64_t kMaxDimension = int64_t{1} << 31;
  if (layout.rows < 1 || layout.rows > kMaxDimension) return error(Code::kShape, "rows out of range", layout.rows);
  if (layout.cols < 1 || layout.cols > kMaxDimension) return error(Code::kShape, "cols out of range", layout.cols);
  if (layout.bits < 1 || layout.bits > PackedLayout::kMaxPlanes)
    return error(Code::kOption, "bits out of range", layout.bits, PackedLayout::kMaxPlanes);
  const int64_t g = layout.group_size;
  const bool fits = g == layout.cols || g == 16 || (g >= 32 && g % 32 == 0);
  if (g < 1 || !fits) return error(Code::kOption, "groupSize must be 16, a multiple of 32, or the row", g);
  if (layout.kind > WeightKind::kPlanes || layout.offset_kind > OffsetKind::kReal)
    return error(Code::kOption, "no such kind of weights or offsets");
  if (layout.kind == WeightKind::kPlanes && layout.offset_kind == OffsetKind::kZeroCode)
    return error(Code::kOption, "zero codes belong to uniform weights only");
  const auto stored_float = [](Dtype d) { return d == Dtype::kF16 || d == Dtype::kBF16 || d == Dtype::kF32; };
  if (!stored_float(layout.scale_dtype)) return error(Code::kDtype, "scales must be f16, bf16 or f32");
  if (layout.offset_kind == OffsetKind::kReal && !stored_float(layout.offset_dtype))
    return error(Code::kDtype, "offsets must be f16, bf16 or f32");
  int64_t words = 0;
  if (!checked_mul(layout.padded_rows(), layout.chunks(), &words) || !checked_mul(words, layout.bits * 4, &words) ||
      !checked_mul(layout.padded_rows(), layout.groups(), &words) || !checked_mul(words, layout.bits * 4, &words))
    return error(Code::kShape, "packed size overflows");
  return ok_status();
}

}  // namespace lutra
