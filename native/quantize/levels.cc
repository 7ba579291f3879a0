#include "quantize/levels.h"

#include <algorithm>

#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"

namespace lutra {

namespace {

constexpr int64_t kMaxLevels = int64_t{1} << kMaxBits;

int bits_of(int64_t levels) {
  int bits = 0;
  while ((int64_t{1} << bits) < levels) ++bits;
  return bits;
}

// groups of w, against those of the levels.
Status check_matrix(const TensorView& w, Dtype dtype, const TensorView& levels, int64_t group_size, const char* what) {
  LUTRA_TRY(require_rank(w, 2, what));
  LUTRA_TRY(require_dtype(w, dtype, what));
  if (group_size < 1) return error(Code::kOption, "levels: a group has at least one column", group_size, 1);
  return check_levels(levels, w.shape[0], ceil_div(w.shape[1], group_size));
}

}  // namespace

void plane_levels(const float* alphas, int bits, const float* offset, float* levels) {
  double whole = 0.0;
  for (int b = 0; b < bits; ++b) whole += alphas[b];
  const double base = offset ? static_cast<double>(*offset) : -whole / 2;
  for (int64_t code = 0; code < (int64_t{1} << bits); ++code) {
    double sum = 0.0;
    for (int b = 0; b < bits; ++b)
      if ((code >> b) & 1) sum += alphas[b];
    levels[code] = static_cast<float>(sum + base);
  }
}

Status check_levels(const TensorView& levels, int64_t rows, int64_t groups) {
  LUTRA_TRY(require_rank(levels, 3, "levels must have 3 dimensions"));
  LUTRA_TRY(require_dtype(levels, Dtype::kF32, "levels must be f32"));
  LUTRA_TRY(require_equal(levels.shape[0], rows, "rows of levels, against rows of the matrix"));
  LUTRA_TRY(require_equal(levels.shape[1], groups, "groups of levels, against columns of the matrix and group_size"));
  const int64_t count = levels.shape[2];
  if (count < 2 || count > kMaxLevels || (count & (count - 1)))
    return error(Code::kOption, "levels: a group has 2^bits of them", count, kMaxLevels);
  return ok_status();
}

Status levels_of(Context& context, LevelKind kind, const TensorView& scales, const TensorView& offsets,
                 const TensorView& levels) {
  const bool planes = kind == LevelKind::kPlanes || kind == LevelKind::kCentredPlanes;
  LUTRA_TRY(require_rank(scales, planes ? 3 : 2, "levels: scales are [m, groups], alphas [m, groups, bits]"));
  LUTRA_TRY(require_dtype(scales, Dtype::kF32, "levels: scales must be f32"));
  const int64_t rows = scales.shape[0], groups = scales.shape[1];
  LUTRA_TRY(check_levels(levels, rows, groups));
  const int64_t count = levels.shape[2];
  const int bits = bits_of(count);
  if (planes) LUTRA_TRY(require_equal(scales.shape[2], bits, "levels: alphas of a group, against its levels"));
  if (kind != LevelKind::kCentredPlanes) {
    LUTRA_TRY(require_dtype(offsets, Dtype::kF32, "levels: offsets must be f32"));
    LUTRA_TRY(require_rank(offsets, 2, "levels: offsets must have 2 dimensions"));
    LUTRA_TRY(require_equal(offsets.shape[0], rows, "levels: rows of offsets, against rows of scales"));
    LUTRA_TRY(require_equal(offsets.shape[1], groups, "levels: groups of offsets, against groups of scales"));
  }
  return for_rows(context, rows, [&](int64_t row) {
    for (int64_t at = row * groups; at < (row + 1) * groups; ++at) {
      float* out = levels.as<float>() + at * count;
      if (planes) {
        const float* offset = kind == LevelKind::kPlanes ? offsets.as<float>() + at : nullptr;
        plane_levels(scales.as<float>() + at * bits, bits, offset, out);
        continue;
      }
      const double scale = scales.as<float>()[at];
      const double offset = offsets.as<float>()[at];
      for (int64_t code = 0; code < count; ++code) {
        const double steps = static_cast<double>(code);
        out[code] = static_cast<float>(kind == LevelKind::kZeroCode ? grid_value(steps, scale, offset)
                                                                    : scale * steps + offset);
      }
    }
  });
}

Status grid_planes(Context& context, const TensorView& scales, const TensorView& zeros, const TensorView& alphas,
                   const TensorView& offsets) {
  LUTRA_TRY(require_rank(scales, 2, "planes: scales must have 2 dimensions"));
  LUTRA_TRY(require_rank(alphas, 3, "planes: alphas must have 3 dimensions"));
  for (const TensorView* values : {&scales, &zeros, &alphas, &offsets})
    LUTRA_TRY(require_dtype(*values, Dtype::kF32, "planes: all values must be f32"));
  LUTRA_TRY(require_same_shape(scales, zeros, "planes: shape of zeros, against shape of scales"));
  LUTRA_TRY(require_same_shape(scales, offsets, "planes: shape of offsets, against shape of scales"));
  const int64_t groups = scales.shape[1], bits = alphas.shape[2];
  LUTRA_TRY(require_equal(alphas.shape[0], scales.shape[0], "planes: rows of alphas, against rows of scales"));
  LUTRA_TRY(require_equal(alphas.shape[1], groups, "planes: groups of alphas, against groups of scales"));
  if (bits < 1 || bits > kMaxBits) return error(Code::kOption, "planes: bits out of range", bits, kMaxBits);
  return for_rows(context, scales.shape[0], [&](int64_t row) {
    for (int64_t at = row * groups; at < (row + 1) * groups; ++at) {
      const float scale = scales.as<float>()[at];
      for (int64_t b = 0; b < bits; ++b) alphas.as<float>()[at * bits + b] = scale * static_cast<float>(1 << b);
      offsets.as<float>()[at] = -scale * zeros.as<float>()[at];
    }
  });
}

Status round_to_levels(Context& context, int64_t group_size, const TensorView& w, const TensorView& levels,
                       const TensorView& codes) {
  LUTRA_TRY(check_matrix(w, Dtype::kF32, levels, group_size, "round_to_levels: w must be f32 [m,k]"));
  LUTRA_TRY(check_matrix(codes, Dtype::kU8, levels, group_size, "round_to_levels: codes must be u8 [m,k]"));
  LUTRA_TRY(require_same_shape(w, codes, "round_to_levels: shape of codes, against shape of w"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "round_to_levels: w is not finite at this element", bad);
  LUTRA_TRY(find_non_finite(context, levels, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "round_to_levels: a level is not finite at this element", bad);
  const int64_t k = w.shape[1], groups = levels.shape[1], count = levels.shape[2];
  return for_rows(context, w.shape[0], [&](int64_t row) {
    float sorted[kMaxLevels];
    uint8_t code_of[kMaxLevels];
    for (int64_t g = 0; g < groups; ++g) {
      sort_levels(levels.as<float>() + (row * groups + g) * count, count, sorted, code_of);
      for (int64_t j = row * k + g * group_size; j < row * k + std::min(k, (g + 1) * group_size); ++j)
        codes.as<uint8_t>()[j] = code_of[nearest_level(sorted, count, w.as<float>()[j])];
    }
  });
}

Status residual(Context& context, const TensorView& w, const TensorView& codes, const TensorView& levels,
                int64_t group_size, const TensorView& difference) {
  LUTRA_TRY(check_matrix(w, Dtype::kF32, levels, group_size, "residual: w must be f32 [m,k]"));
  LUTRA_TRY(check_matrix(codes, Dtype::kU8, levels, group_size, "residual: codes must be u8 [m,k]"));
  LUTRA_TRY(check_matrix(difference, Dtype::kF32, levels, group_size, "residual: the difference must be f32 [m,k]"));
  LUTRA_TRY(require_same_shape(w, codes, "residual: shape of codes, against shape of w"));
  LUTRA_TRY(require_same_shape(w, difference, "residual: shape of the difference, against shape of w"));
  LUTRA_TRY(require_same_or_apart(difference, w, "residual: the difference is w or apart from it"));
  const int64_t k = w.shape[1], groups = levels.shape[1], count = levels.shape[2];
  const unsigned mask = static_cast<unsigned>(count - 1);
  return for_rows(context, w.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* level = levels.as<float>() + (row * groups + g) * count;
      for (int64_t j = row * k + g * group_size; j < row * k + std::min(k, (g + 1) * group_size); ++j)
        difference.as<float>()[j] = w.as<float>()[j] - level[codes.as<uint8_t>()[j] & mask];
    }
  });
}

}  // namespace lutra
