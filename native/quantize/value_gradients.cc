#include "quantize/value_gradients.h"

#include <algorithm>
#include <numeric>

#include "ops/operand.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"

namespace lutra {

namespace {

constexpr int64_t kMaxLevels = int64_t{1} << kMaxBits;

Status check_matrix(const TensorView& x, Dtype dtype, const char* what) {
  LUTRA_TRY(require_rank(x, 2, what));
  return require_dtype(x, dtype, what);
}

bool planes(LevelKind kind) { return kind == LevelKind::kPlanes || kind == LevelKind::kCentredPlanes; }
bool has_offsets(LevelKind kind) { return kind == LevelKind::kPlanes || kind == LevelKind::kRealOffset; }

// The derivative by each level of a group: the sum of dw over the weights that have its code.
struct LevelGradients {
  double sums[kMaxLevels];
  int64_t levels;

  LevelGradients(const float* dw, const uint8_t* codes, int64_t count, int64_t levels_) : levels(levels_) {
    std::fill_n(sums, levels, 0.0);
    for (int64_t j = 0; j < count; ++j) sums[codes[j] & (levels - 1)] += dw[j];
  }

  double offset() const { return std::accumulate(sums, sums + levels, 0.0); }
  double scale(double zero) const {
    double sum = 0;
    for (int64_t code = 0; code < levels; ++code) sum += (static_cast<double>(code) - zero) * sums[code];
    return sum;
  }
  double alpha(int64_t bit, double centre) const {
    double sum = 0;
    for (int64_t code = 0; code < levels; ++code) sum += (static_cast<double>((code >> bit) & 1) - centre) * sums[code];
    return sum;
  }
};

Status check(LevelKind kind, int bits, int64_t group_size, const TensorView& dw, const TensorView& codes,
             const TensorView& zeros, const TensorView& dscales, const TensorView& doffsets) {
  if (kind > LevelKind::kCentredPlanes)
    return error(Code::kOption, "value_gradients: no such kind", static_cast<int64_t>(kind));
  if (bits < 1 || bits > kMaxBits) return error(Code::kOption, "value_gradients: bits out of range", bits, kMaxBits);
  if (group_size < 1) return error(Code::kOption, "value_gradients: a group has at least one column", group_size, 1);
  LUTRA_TRY(check_matrix(dw, Dtype::kF32, "value_gradients: dw must be f32 [m,k]"));
  LUTRA_TRY(check_matrix(codes, Dtype::kU8, "value_gradients: codes must be u8 [m,k]"));
  LUTRA_TRY(require_same_shape(dw, codes, "value_gradients: shape of codes, against shape of dw"));
  const int64_t m = dw.shape[0], groups = ceil_div(dw.shape[1], group_size);
  const int rank = planes(kind) ? 3 : 2;
  LUTRA_TRY(require_rank(dscales, rank, "value_gradients: dscales are [m, groups], dalphas [m, groups, bits]"));
  LUTRA_TRY(require_dtype(dscales, Dtype::kF32, "value_gradients: dscales must be f32"));
  LUTRA_TRY(require_equal(dscales.shape[0], m, "value_gradients: rows of dscales, against rows of dw"));
  LUTRA_TRY(require_equal(dscales.shape[1], groups, "value_gradients: groups of dscales, against columns of dw"));
  if (rank == 3) LUTRA_TRY(require_equal(dscales.shape[2], bits, "value_gradients: alphas of a group, against bits"));
  if (kind == LevelKind::kCentredPlanes) return ok_status();
  const TensorView& second = has_offsets(kind) ? doffsets : zeros;
  LUTRA_TRY(check_matrix(second, Dtype::kF32, "value_gradients: doffsets and zeros must be f32 [m, groups]"));
  LUTRA_TRY(require_equal(second.shape[0], m, "value_gradients: rows of doffsets or zeros, against rows of dw"));
  return require_equal(second.shape[1], groups, "value_gradients: groups of doffsets or zeros, against columns of dw");
}

}  // namespace

Status level_weights(Context& context, int64_t group_size, const TensorView& codes, const TensorView& levels, bool add,
                     const TensorView& w) {
  LUTRA_TRY(check_matrix(codes, Dtype::kU8, "level_weights: codes must be u8 [m,k]"));
  LUTRA_TRY(check_matrix(w, Dtype::kF32, "level_weights: w must be f32 [m,k]"));
  LUTRA_TRY(require_same_shape(codes, w, "level_weights: shape of w, against shape of codes"));
  if (group_size < 1) return error(Code::kOption, "level_weights: a group has at least one column", group_size, 1);
  const int64_t k = codes.shape[1], groups = ceil_div(k, group_size);
  LUTRA_TRY(check_levels(levels, codes.shape[0], groups));
  LUTRA_TRY(require_apart(w, levels, "level_weights: w may not overlap levels"));
  LUTRA_TRY(require_apart(w, codes, "level_weights: w may not overlap codes"));
  const int64_t count = levels.shape[2];
  const unsigned mask = static_cast<unsigned>(count - 1);
  return for_rows(context, codes.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* level = levels.as<float>() + (row * groups + g) * count;
      for (int64_t j = row * k + g * group_size; j < row * k + std::min(k, (g + 1) * group_size); ++j) {
        const float value = level[codes.as<uint8_t>()[j] & mask];
        w.as<float>()[j] = add ? w.as<float>()[j] + value : value;
      }
    }
  });
}

Status value_gradients(Context& context, LevelKind kind, int bits, int64_t group_size, const TensorView& dw,
                       const TensorView& codes, const TensorView& zeros, const TensorView& dscales,
                       const TensorView& doffsets) {
  LUTRA_TRY(check(kind, bits, group_size, dw, codes, zeros, dscales, doffsets));
  const int64_t k = dw.shape[1], groups = dscales.shape[1];
  const double centre = kind == LevelKind::kCentredPlanes ? 0.5 : 0.0;
  return for_rows(context, dw.shape[0], [&](int64_t row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * group_size, at = row * groups + g;
      const LevelGradients levels(dw.as<float>() + row * k + first, codes.as<uint8_t>() + row * k + first,
                                  std::min(group_size, k - first), int64_t{1} << bits);
      const double zero = kind == LevelKind::kZeroCode ? static_cast<double>(zeros.as<float>()[at]) : 0.0;
      if (!planes(kind)) dscales.as<float>()[at] = static_cast<float>(levels.scale(zero));
      for (int64_t b = 0; planes(kind) && b < bits; ++b)
        dscales.as<float>()[at * bits + b] = static_cast<float>(levels.alpha(b, centre));
      if (has_offsets(kind)) doffsets.as<float>()[at] = static_cast<float>(levels.offset());
    }
  });
}

}  // namespace lutra
