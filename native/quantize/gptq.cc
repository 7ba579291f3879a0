#include "quantize/gptq.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "linalg/cholesky.h"
#include "ops/indices.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/column_feedback.h"
#include "quantize/for_rows.h"
#include "quantize/levels.h"

namespace lutra {

namespace {

constexpr int64_t kPartRows = 8;

// Reversing both axes of a dense matrix, or of a packed triangle, reverses its memory.
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
  const Matrix64& m;       // [k, k], upper triangular
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

  // Rounds columns [begin, begin + width) of one row. carry: what the columns before add. errors: the row of w - q,
  // written for these columns.
  void round_row(int64_t row, int64_t begin, int64_t width, const float* carry, float* errors) const {
    BlockFeedback block(m, begin, width, w + row * k, carry);
    double sum = 0;
    for (int64_t column = begin; column < begin + width; ++column) {
      const double wanted = block.wanted(column);
      if (wanted_out) wanted_out[row * k + column] = static_cast<float>(wanted);
      const int64_t group = (row * groups + group_of[column]) * count;
      const int64_t at = group + nearest_level(sorted + group, count, wanted);
      const double value = sorted[at];
      codes[row * k + column] = code_of[at];
      const double normalised = (wanted - value) * block.pivot(column);
      sum += normalised * normalised;
      errors[column] = static_cast<float>(static_cast<double>(w[row * k + column]) - value);
      block.add(column, errors[column]);
    }
    loss[row] += sum;
  }
};

Status check(const TensorView& w, const TensorView& levels, const TensorView& group_of, const TensorView& codes,
             const TensorView& loss, const TensorView& wanted) {
  LUTRA_TRY(require_rank(w, 2, "gptq: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(group_of, 1, "gptq: group_of must have 1 dimension"));
  LUTRA_TRY(require_rank(codes, 2, "gptq: codes must have 2 dimensions"));
  LUTRA_TRY(require_rank(loss, 1, "gptq: loss must have 1 dimension"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "gptq: w must be f32"));
  LUTRA_TRY(require_dtype(group_of, Dtype::kI32, "gptq: group_of must be i32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "gptq: codes must be u8"));
  LUTRA_TRY(require_dtype(loss, Dtype::kF64, "gptq: loss must be f64"));
  const int64_t rows = w.shape[0];
  const int64_t k = w.shape[1];
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
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "gptq: w is not finite at this element", bad);
  LUTRA_TRY(find_non_finite(context, levels, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "gptq: a level is not finite at this element", bad);
  return check_factor(m_factor, w.shape[1]);
}

}  // namespace

Status check_factor(const TensorView& m_factor, int64_t k) {
  LUTRA_TRY(require_triangle(m_factor, k, "gptq: the factor must be f64, rows and columns as w has columns"));
  const Matrix64 m = upper_triangle(m_factor);
  for (int64_t j = 0; j < k; ++j) {
    const double pivot = m.at(j, j);
    if (!(pivot > 0) || !std::isfinite(pivot))
      return error(Code::kNotPositiveDefinite, "gptq: the factor's diagonal is not positive in this row", j, k);
  }
  return ok_status();
}

Status reverse_cholesky(Context& context, const TensorView& hessian) {
  const int64_t k = std::max<int64_t>(triangle_rows(hessian), 0);
  LUTRA_TRY(require_triangle(hessian, k, "reverse_cholesky: the Hessian must be f64, square or a packed triangle"));
  LUTRA_TRY(finished(reverse_axes(context, hessian.as<double>(), hessian.elements())));
  const Status status = cholesky(context, hessian);
  if (status.code == Code::kNotPositiveDefinite)
    return error(status.code, "reverse_cholesky: the pivot of this column is not positive", k - 1 - status.found, k);
  LUTRA_TRY(status);
  return finished(reverse_axes(context, hessian.as<double>(), hessian.elements()));
}

Status gptq_pass(Context& context, const TensorView& w, const TensorView& m_factor, const TensorView& levels,
                 const TensorView& group_of, const TensorView& codes, const TensorView& loss,
                 const TensorView& wanted) {
  LUTRA_TRY(check(w, levels, group_of, codes, loss, wanted));
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
  const Matrix64 m = upper_triangle(m_factor);
  const Pass pass{w.as<float>(),
                  m,
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
  FeedbackCarry carry(m, rows);
  if (!carry.allocated()) return out_of_memory(carry.bytes());
  for (int64_t begin = 0; begin < k; begin += kFeedbackBlock) {
    const int64_t width = std::min(kFeedbackBlock, k - begin);
    LUTRA_TRY(carry.reach(context, begin, width));
    LUTRA_TRY(finished(context.parallel(ceil_div(rows, kPartRows), [&](int64_t part) {
      for (int64_t row = part * kPartRows; row < std::min(rows, (part + 1) * kPartRows); ++row)
        pass.round_row(row, begin, width, carry.of_row(row), carry.errors(row));
    })));
  }
  for (int64_t row = 0; row < rows; ++row)
    if (!std::isfinite(pass.loss[row])) return error(Code::kNonFinite, "gptq: the feedback of this row overflows", row);
  return ok_status();
}

}  // namespace lutra
