#include "quantize/gptq.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "linalg/cholesky.h"
#include "ops/indices.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/levels.h"

namespace lutra {

namespace {

constexpr int64_t kBlock = 128;  // columns whose mutual feedback runs in fp64
constexpr int64_t kPartRows = 8;

// Reversing both axes of a dense matrix reverses its memory.
bool reverse_axes(Context& context, double* data, int64_t elements) {
  constexpr int64_t kPart = int64_t{1} << 17;
  const int64_t half = elements / 2;
  return context.parallel(ceil_div(half, kPart), [&](int64_t part) {
    const int64_t end = std::min(half, (part + 1) * kPart);
    for (int64_t i = part * kPart; i < end; ++i) std::swap(data[i], data[elements - 1 - i]);
  });
}

struct Pass {
  const float* w;          // [m, k]
  const double* m;         // [k, k], upper triangular
  const float* sorted;     // [rows, groups, count]: every group's levels, ascending
  const uint8_t* code_of;  // [rows, groups, count]: the code of each
  const Indices& group_of;
  uint8_t* codes;
  double* loss;
  float* wanted_out;  // may be null
  int64_t rows;
  int64_t k;
  int64_t groups;
  int64_t count;

  // Columns of M of this block, divided by their diagonal: panel[i][j] = M[i, j0 + j] / M[j0 + j, j0 + j], i < j0.
  bool scale_panel(Context& context, int64_t j0, int64_t width, float* panel) const {
    constexpr int64_t kPart = 256;
    return context.parallel(ceil_div(j0, kPart), [&](int64_t part) {
      for (int64_t i = part * kPart; i < std::min(j0, (part + 1) * kPart); ++i)
        for (int64_t j = 0; j < width; ++j)
          panel[i * width + j] = static_cast<float>(m[i * k + j0 + j] / m[(j0 + j) * k + j0 + j]);
    });
  }

  // Rounds columns [j0, j0 + width) of one row. carry: what the columns before j0 add, already divided by M_jj.
  // errors: the row of w - q, written for these columns.
  void round_row(int64_t row, int64_t j0, int64_t width, const float* carry, float* errors) const {
    double feedback[kBlock] = {};  // sum over the block's earlier columns of (w_i - q_i) M_ij
    double sum = 0;
    for (int64_t j = 0; j < width; ++j) {
      const int64_t column = j0 + j;
      const double* m_row = m + column * k + j0;
      const double weight = w[row * k + column];
      const double wanted = weight + (carry ? static_cast<double>(carry[j]) : 0.0) + feedback[j] / m_row[j];
      if (wanted_out) wanted_out[row * k + column] = static_cast<float>(wanted);
      const int64_t group = (row * groups + group_of[column]) * count;
      const int64_t at = group + nearest_level(sorted + group, count, wanted);
      const double value = sorted[at];
      codes[row * k + column] = code_of[at];
      const double normalised = (wanted - value) * m_row[j];
      sum += normalised * normalised;
      errors[column] = static_cast<float>(weight - value);
      const double stored = errors[column];
      for (int64_t l = j + 1; l < width; ++l) feedback[l] += stored * m_row[l];
    }
    loss[row] += sum;
  }
};

Status check(const TensorView& w, const TensorView& m_factor, const TensorView& levels, const TensorView& group_of,
             const TensorView& codes, const TensorView& loss, const TensorView& wanted) {
  LUTRA_TRY(require_rank(w, 2, "gptq: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(m_factor, 2, "gptq: the factor must have 2 dimensions"));
  LUTRA_TRY(require_rank(group_of, 1, "gptq: group_of must have 1 dimension"));
  LUTRA_TRY(require_rank(codes, 2, "gptq: codes must have 2 dimensions"));
  LUTRA_TRY(require_rank(loss, 1, "gptq: loss must have 1 dimension"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "gptq: w must be f32"));
  LUTRA_TRY(require_dtype(m_factor, Dtype::kF64, "gptq: the factor must be f64"));
  LUTRA_TRY(require_dtype(group_of, Dtype::kI32, "gptq: group_of must be i32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "gptq: codes must be u8"));
  LUTRA_TRY(require_dtype(loss, Dtype::kF64, "gptq: loss must be f64"));
  const int64_t rows = w.shape[0];
  const int64_t k = w.shape[1];
  LUTRA_TRY(require_equal(m_factor.shape[0], k, "gptq: rows of the factor, against columns of w"));
  LUTRA_TRY(require_equal(m_factor.shape[1], k, "gptq: columns of the factor, against columns of w"));
  LUTRA_TRY(require_equal(group_of.shape[0], k, "gptq: elements of group_of, against columns of w"));
  LUTRA_TRY(require_same_shape(w, codes, "gptq: shape of codes, against shape of w"));
  LUTRA_TRY(require_equal(loss.shape[0], rows, "gptq: elements of loss, against rows of w"));
  if (wanted.data) {
    LUTRA_TRY(require_dtype(wanted, Dtype::kF32, "gptq: wanted must be f32"));
    LUTRA_TRY(require_same_shape(w, wanted, "gptq: shape of wanted, against shape of w"));
    LUTRA_TRY(require_apart(wanted, w, "gptq: wanted may not overlap w"));
  }
  return check_levels(levels, rows, levels.rank == 3 ? levels.shape[1] : 0);
}

Status check_values(Context& context, const TensorView& w, const TensorView& m_factor, const TensorView& levels) {
  const int64_t k = w.shape[1];
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "gptq: w is not finite at this element", bad);
  LUTRA_TRY(find_non_finite(context, levels, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "gptq: a level is not finite at this element", bad);
  for (int64_t j = 0; j < k; ++j) {
    const double pivot = m_factor.as<double>()[j * k + j];
    if (!(pivot > 0) || !std::isfinite(pivot))
      return error(Code::kNotPositiveDefinite, "gptq: the factor's diagonal is not positive in this row", j, k);
  }
  return ok_status();
}

}  // namespace

Status reverse_cholesky(Context& context, const TensorView& hessian) {
  LUTRA_TRY(require_rank(hessian, 2, "reverse_cholesky: the Hessian must have 2 dimensions"));
  LUTRA_TRY(require_dtype(hessian, Dtype::kF64, "reverse_cholesky: the Hessian must be f64"));
  const int64_t k = hessian.shape[0];
  LUTRA_TRY(require_equal(hessian.shape[1], k, "reverse_cholesky: columns of the Hessian, against its rows"));
  LUTRA_TRY(finished(reverse_axes(context, hessian.as<double>(), k * k)));
  const Status status = cholesky(context, hessian);
  if (status.code == Code::kNotPositiveDefinite)
    return error(status.code, "reverse_cholesky: the pivot of this column is not positive", k - 1 - status.found, k);
  LUTRA_TRY(status);
  return finished(reverse_axes(context, hessian.as<double>(), k * k));
}

Status gptq_pass(Context& context, const TensorView& w, const TensorView& m_factor, const TensorView& levels,
                 const TensorView& group_of, const TensorView& codes, const TensorView& loss,
                 const TensorView& wanted) {
  LUTRA_TRY(check(w, m_factor, levels, group_of, codes, loss, wanted));
  LUTRA_TRY(check_values(context, w, m_factor, levels));
  const int64_t rows = w.shape[0], k = w.shape[1];
  const int64_t groups = levels.shape[1], count = levels.shape[2];
  Indices group_numbers;
  LUTRA_TRY(group_numbers.take(group_of, 0, groups, "gptq: a column's group is out of range"));
  const AlignedBuffer sorted(levels.bytes());
  const AlignedBuffer code_of(static_cast<size_t>(levels.elements()));
  if (!sorted || !code_of) return out_of_memory(static_cast<int64_t>(levels.bytes()));
  LUTRA_TRY(for_rows(context, rows, [&](int64_t row) {
    for (int64_t at = row * groups * count; at < (row + 1) * groups * count; at += count)
      sort_levels(levels.as<float>() + at, count, sorted.as<float>() + at, code_of.as<uint8_t>() + at);
  }));
  const Pass pass{w.as<float>(),
                  m_factor.as<double>(),
                  sorted.as<float>(),
                  code_of.as<uint8_t>(),
                  group_numbers,
                  codes.as<uint8_t>(),
                  loss.as<double>(),
                  wanted.as<float>(),
                  rows,
                  k,
                  groups,
                  count};
  std::fill_n(pass.loss, rows, 0.0);
  // The product below uses the context's scratch: these live beside it.
  const AlignedBuffer errors(static_cast<size_t>(rows * k) * sizeof(float));
  const AlignedBuffer panel(static_cast<size_t>(k * kBlock) * sizeof(float));
  const AlignedBuffer carry(static_cast<size_t>(rows * kBlock) * sizeof(float));
  if (!errors || !panel || !carry) return out_of_memory(rows * k * static_cast<int64_t>(sizeof(float)));
  for (int64_t j0 = 0; j0 < k; j0 += kBlock) {
    const int64_t width = std::min(kBlock, k - j0);
    if (j0 > 0) {
      LUTRA_TRY(finished(pass.scale_panel(context, j0, width, panel.as<float>())));
      const RightOperand right{.data = panel.as<float>(), .stride = width, .k_major = true};
      LUTRA_TRY(product(context, rows, width, j0, errors.as<float>(), k, right, carry.as<float>(), kBlock));
    }
    LUTRA_TRY(finished(context.parallel(ceil_div(rows, kPartRows), [&](int64_t part) {
      for (int64_t row = part * kPartRows; row < std::min(rows, (part + 1) * kPartRows); ++row)
        pass.round_row(row, j0, width, j0 > 0 ? carry.as<float>() + row * kBlock : nullptr,
                       errors.as<float>() + row * k);
    })));
  }
  for (int64_t row = 0; row < rows; ++row)
    if (!std::isfinite(pass.loss[row])) return error(Code::kNonFinite, "gptq: the feedback of this row overflows", row);
  return ok_status();
}

}  // namespace lutra
