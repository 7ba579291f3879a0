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

Status check_sub_branch(const PackedLayout& layout, const SubBranch& sub_branch) {
  const int64_t rank = sub_branch.rank;
  if (rank == 0) return ok_status();
  const int64_t most = layout.rows < layout.cols ? layout.rows : layout.cols;
  if (rank < 0 || rank > most) return error(Code::kShape, "the rank of a sub-branch is over its matrix's", rank, most);
  const Dtype dtype = sub_branch.dtype;
  if (dtype != Dtype::kF16 && dtype != Dtype::kBF16 && dtype != Dtype::kI8)
    return error(Code::kDtype, "a sub-branch is f16, bf16 or i8", static_cast<int64_t>(dtype));
  if (!sub_branch.a || !sub_branch.b) return error(Code::kShape, "a sub-branch needs both of its matrices");
  const bool scaled = sub_branch.a_scales && sub_branch.b_scales;
  if (dtype == Dtype::kI8 && !scaled) return error(Code::kShape, "an i8 sub-branch needs the scales of its rows");
  return ok_status();
}

}  // namespace lutra
