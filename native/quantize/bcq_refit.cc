#include <algorithm>
#include <cmath>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/bcq.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/levels.h"
#include "quantize/narrow.h"
#include "quantize/small_system.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int64_t kBand = 256;  // rows whose products are formed together
// Products are fp32: a plane that depends on the others to this share is not told from them.
constexpr double kDependent = 1e-5;

struct Refit {
  const BcqRefit& options;
  const float* w;
  const Matrix64& hessian;
  uint8_t* codes;
  float* alphas;
  float* offsets;
  int64_t rows;
  int64_t k;
  int64_t groups;
  int bits;
  float* errors;   // [rows, k]: W^ - W
  float* panel;    // [width, k]: the Hessian's rows of one group
  float* pull;     // [kBand, width]: errors times the panel
  float* planes;   // [bits, kBand, width]: a plane's bits as numbers
  float* reached;  // [bits, kBand, width]: those times the group's own block of the Hessian
  float* sums;     // [width]: that block's row sums

  int unknowns() const { return bits + (options.centred ? 0 : 1); }
  double low() const { return options.centred ? -0.5 : 0.0; }

  void levels_at(int64_t at, float* levels) const {
    plane_levels(alphas + at * bits, bits, options.centred ? nullptr : offsets + at, levels);
  }

  Status first_errors(Context& context) const {
    return for_rows(context, rows, [&](int64_t row) {
      float levels[1 << kMaxBits];
      for (int64_t g = 0; g < groups; ++g) {
        levels_at(row * groups + g, levels);
        for (int64_t j = g * options.group_size; j < std::min(k, (g + 1) * options.group_size); ++j)
          errors[row * k + j] = levels[codes[row * k + j]] - w[row * k + j];
      }
    });
  }

  Status load_panel(Context& context, int64_t begin, int64_t width) const {
    LUTRA_TRY(narrow_rows(context, hessian, begin, width, panel));
    return for_rows(context, width, [&](int64_t i) {
      double sum = options.damping;
      panel[i * k + begin + i] = static_cast<float>(hessian.at(begin + i, begin + i) + options.damping);
      for (int64_t j = begin; j < begin + width; ++j) sum += symmetric_at(hessian, begin + i, j);
      sums[i] = static_cast<float>(sum);
    });
  }

  // The products that all rows of a band need.
  Status multiply(Context& context, int64_t first, int64_t count, int64_t begin, int64_t width) const {
    const RightOperand whole{.data = panel, .stride = k};
    LUTRA_TRY(product(context, count, width, k, errors + first * k, k, whole, pull, width));
    const RightOperand own{.data = panel + begin, .stride = k};
    for (int b = 0; b < bits; ++b) {
      float* plane = planes + b * kBand * width;
      LUTRA_TRY(for_rows(context, count, [&](int64_t row) {
        for (int64_t j = 0; j < width; ++j)
          plane[row * width + j] = static_cast<float>((codes[(first + row) * k + begin + j] >> b) & 1);
      }));
      LUTRA_TRY(product(context, count, width, width, plane, width, own, reached + b * kBand * width, width));
    }
    return ok_status();
  }

  // Normal equations of one row's group, F^T H F step = -F^T H e, with the columns F of `low() + bit` and of ones.
  SmallSystem system_of(int64_t band_row, int64_t width) const {
    double dots[kMaxUnknowns][kMaxUnknowns] = {};  // with columns of plain bits, and the ones last
    double pulls[kMaxUnknowns] = {};
    for (int b = 0; b < bits; ++b) {
      const float* hb = reached + (b * kBand + band_row) * width;
      for (int64_t j = 0; j < width; ++j) dots[bits][b] += hb[j];
      for (int c = 0; c <= b; ++c) {
        const float* bit = planes + (c * kBand + band_row) * width;
        for (int64_t j = 0; j < width; ++j) dots[b][c] += hb[j] * bit[j];
      }
      const float* bit = planes + (b * kBand + band_row) * width;
      for (int64_t j = 0; j < width; ++j) pulls[b] += pull[band_row * width + j] * bit[j];
    }
    for (int64_t j = 0; j < width; ++j) {
      dots[bits][bits] += sums[j];
      pulls[bits] += pull[band_row * width + j];
    }
    SmallSystem system;
    system.unknowns = unknowns();
    for (int r = 0; r < bits; ++r) {
      system.b[r] = -(pulls[r] + low() * pulls[bits]);
      for (int c = 0; c <= r; ++c)
        system.a[r][c] = dots[r][c] + low() * (dots[bits][r] + dots[bits][c]) + low() * low() * dots[bits][bits];
    }
    if (!options.centred) {
      system.b[bits] = -pulls[bits];
      for (int c = 0; c <= bits; ++c) system.a[bits][c] = dots[bits][c];
    }
    return system;
  }

  void refit_group(int64_t row, int64_t band_row, int64_t group, int64_t width) const {
    const int64_t at = row * groups + group;
    const int64_t begin = row * k + group * options.group_size;
    SmallSystem system = system_of(band_row, width);
    const SmallSystem kept = system;
    double step[kMaxUnknowns];
    system.solve(kDependent, step);
    float alphas_new[kMaxBits];
    unsigned flipped = 0;
    double offset = options.centred ? 0.0 : offsets[at] + step[bits];
    for (int b = 0; b < bits; ++b) {
      const double alpha = alphas[at * bits + b] + step[b];
      if (alpha < 0) {
        flipped |= 1u << b;
        offset += alpha;
      }
      alphas_new[b] = stored_value(options.storage, std::fabs(alpha));
    }
    const float offset_new = options.centred ? 0.0f : stored_value(options.storage, offset);
    if (!(change(kept, at, alphas_new, offset_new, flipped) < 0)) return;
    std::copy(alphas_new, alphas_new + bits, alphas + at * bits);
    offsets[at] = offset_new;
    float levels[1 << kMaxBits];
    levels_at(at, levels);
    for (int64_t j = begin; j < begin + width; ++j) {
      codes[j] = static_cast<uint8_t>(codes[j] ^ flipped);
      errors[j] = levels[codes[j]] - w[j];
    }
  }

  // What the objective gains by the stored numbers: a NaN, or a number not below zero, where they do not help.
  double change(const SmallSystem& system, int64_t at, const float* alphas_new, float offset_new,
                unsigned flipped) const {
    double moved[kMaxUnknowns] = {};  // as the columns of the system have it, with the old bits
    double offset = offset_new;
    for (int b = 0; b < bits; ++b) {
      const double alpha = alphas_new[b];
      const bool flip = (flipped >> b) & 1;
      if (flip) offset += alpha;
      moved[b] = (flip ? -alpha : alpha) - static_cast<double>(alphas[at * bits + b]);
    }
    moved[bits] = offset - static_cast<double>(offsets[at]);
    double sum = 0.0;
    for (int r = 0; r < system.unknowns; ++r) {
      sum -= 2 * moved[r] * system.b[r];
      for (int c = 0; c <= r; ++c) sum += (c < r ? 2 : 1) * moved[r] * system.a[r][c] * moved[c];
    }
    return sum;
  }
};

Status check(Context& context, const BcqRefit& options, const TensorView& w, const TensorView& hessian,
             const TensorView& codes, const TensorView& alphas, const TensorView& offsets) {
  LUTRA_TRY(require_rank(w, 2, "bcq refit: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(alphas, 3, "bcq refit: alphas must have 3 dimensions"));
  LUTRA_TRY(require_rank(offsets, 2, "bcq refit: offsets must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "bcq refit: w must be f32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "bcq refit: codes must be u8"));
  LUTRA_TRY(require_dtype(alphas, Dtype::kF32, "bcq refit: alphas must be f32"));
  LUTRA_TRY(require_dtype(offsets, Dtype::kF32, "bcq refit: offsets must be f32"));
  LUTRA_TRY(require_same_shape(w, codes, "bcq refit: shape of codes, against shape of w"));
  if (options.group_size < 1) return error(Code::kOption, "bcq refit: a group has a column", options.group_size);
  if (!(options.damping >= 0)) return error(Code::kOption, "bcq refit: damping is not negative");
  if (!is_float(options.storage)) return error(Code::kDtype, "bcq refit: values are stored in f16, bf16 or f32");
  const int64_t k = w.shape[1], groups = ceil_div(k, options.group_size);
  LUTRA_TRY(require_triangle(hessian, k, "bcq refit: the Hessian must be f64, rows and columns as w has columns"));
  LUTRA_TRY(require_equal(alphas.shape[0], w.shape[0], "bcq refit: rows of alphas, against rows of w"));
  LUTRA_TRY(require_equal(alphas.shape[1], groups, "bcq refit: groups of alphas, against columns of w"));
  LUTRA_TRY(require_equal(offsets.shape[0], w.shape[0], "bcq refit: rows of offsets, against rows of w"));
  LUTRA_TRY(require_equal(offsets.shape[1], groups, "bcq refit: groups of offsets, against columns of w"));
  const int64_t bits = alphas.shape[2];
  if (bits < 1 || bits > kMaxBits) return error(Code::kOption, "bcq refit: bits out of range", bits, kMaxBits);
  for (int64_t i = 0; i < codes.elements(); ++i)
    if (codes.as<uint8_t>()[i] >> bits) return error(Code::kOption, "bcq refit: a code is too large", i);
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, hessian, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, "bcq refit: the Hessian is not finite at this element", bad);
}

}  // namespace

Status bcq_refit(Context& context, const BcqRefit& options, const TensorView& w, const TensorView& hessian,
                 const TensorView& codes, const TensorView& alphas, const TensorView& offsets) {
  LUTRA_TRY(check(context, options, w, hessian, codes, alphas, offsets));
  const int64_t rows = w.shape[0], k = w.shape[1];
  const int bits = static_cast<int>(alphas.shape[2]);
  const int64_t widest = std::min(k, options.group_size);
  const auto floats = [](int64_t count) { return AlignedBuffer(static_cast<size_t>(count) * sizeof(float)); };
  // The products use the context's scratch: these live beside it.
  const AlignedBuffer errors = floats(rows * k), panel = floats(widest * k), pull = floats(kBand * widest);
  const AlignedBuffer planes = floats(bits * kBand * widest), reached = floats(bits * kBand * widest);
  const AlignedBuffer sums = floats(widest);
  if (!errors || !panel || !pull || !planes || !reached || !sums)
    return out_of_memory((rows + widest) * k * static_cast<int64_t>(sizeof(float)));
  const Matrix64 metric = upper_triangle(hessian);
  const Refit refit{options,
                    w.as<float>(),
                    metric,
                    codes.as<uint8_t>(),
                    alphas.as<float>(),
                    offsets.as<float>(),
                    rows,
                    k,
                    alphas.shape[1],
                    bits,
                    errors.as<float>(),
                    panel.as<float>(),
                    pull.as<float>(),
                    planes.as<float>(),
                    reached.as<float>(),
                    sums.as<float>()};
  LUTRA_TRY(refit.first_errors(context));
  for (int64_t group = 0; group < refit.groups; ++group) {
    const int64_t begin = group * options.group_size;
    const int64_t width = std::min(k, begin + options.group_size) - begin;
    LUTRA_TRY(refit.load_panel(context, begin, width));
    for (int64_t first = 0; first < rows; first += kBand) {
      const int64_t count = std::min(kBand, rows - first);
      LUTRA_TRY(refit.multiply(context, first, count, begin, width));
      LUTRA_TRY(for_rows(context, count, [&](int64_t row) { refit.refit_group(first + row, row, group, width); }));
    }
  }
  return ok_status();
}

}  // namespace lutra
