// Dynamic groups: a group's grid is fitted when the pass enters it, to what its weights have become by then.
#include <algorithm>
#include <cmath>

#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/column_feedback.h"
#include "quantize/for_rows.h"
#include "quantize/gptq.h"
#include "quantize/grid.h"
#include "quantize/levels.h"

namespace lutra {

namespace {

struct DynamicPass {
  const GridOptions& options;
  const TensorView& w;
  const Matrix64& m;
  const TensorView& scales;
  const TensorView& zeros;
  uint8_t* codes;
  double* loss;
  FeedbackCarry& carry;
  float* compensated;  // [rows, length], of one group
  int64_t rows = w.shape[0];
  int64_t k = w.shape[1];
  int64_t groups = scales.shape[1];
  int64_t length = group_length(options.group_size, k);

  BlockFeedback block_of(int64_t row, int64_t begin, int64_t end) const {
    return {m, begin, end - begin, w.as<float>() + row * k, carry.of_row(row)};
  }

  void fit(int64_t row, int64_t group, const float* values, int64_t count) const {
    const UniformGrid grid = fit_group(options, values, count);
    scales.as<float>()[row * groups + group] = grid.scale;
    zeros.as<float>()[row * groups + group] = grid.zero;
  }

  // Rounds columns [from, to) of one group, whose grid is known.
  void round(int64_t row, int64_t group, int64_t from, int64_t to, BlockFeedback& block) const {
    const int64_t count = int64_t{1} << options.bits;
    const double scale = scales.as<float>()[row * groups + group], zero = zeros.as<float>()[row * groups + group];
    float levels[1 << kMaxBits];
    for (int64_t code = 0; code < count; ++code)
      levels[code] = static_cast<float>(grid_value(static_cast<double>(code), scale, zero));
    double sum = 0.0;
    for (int64_t column = from; column < to; ++column) {
      const double wanted = block.wanted(column);
      const int64_t code = nearest_level(levels, count, wanted);
      codes[row * k + column] = static_cast<uint8_t>(code);
      const double value = levels[code];
      const double normalised = (wanted - value) * block.pivot(column);
      sum += normalised * normalised;
      float& error = carry.errors(row)[column];
      error = static_cast<float>(static_cast<double>(w.as<float>()[row * k + column]) - value);
      block.add(column, error);
    }
    loss[row] += sum;
  }

  // Columns [begin, end), whole groups that fit a block.
  Status run_groups(Context& context, int64_t begin, int64_t end) const {
    LUTRA_TRY(carry.reach(context, begin, end - begin));
    return for_rows(context, rows, [&](int64_t row) {
      BlockFeedback block = block_of(row, begin, end);
      float values[kFeedbackBlock];
      for (int64_t from = begin; from < end; from += length) {
        const int64_t to = std::min(end, from + length);
        block.compensated(from, to, values);
        fit(row, from / length, values, to - from);
        round(row, from / length, from, to, block);
      }
    });
  }

  // Columns [begin, end), one group of several blocks: what it becomes, its grid, then its codes.
  Status run_wide_group(Context& context, int64_t begin, int64_t end) const {
    for (int64_t from = begin; from < end; from += kFeedbackBlock) {
      const int64_t to = std::min(end, from + kFeedbackBlock);
      LUTRA_TRY(carry.reach(context, from, to - from));
      LUTRA_TRY(for_rows(context, rows, [&](int64_t row) {
        float* values = compensated + row * length + from - begin;
        block_of(row, from, to).compensated(from, to, values);
        for (int64_t column = from; column < to; ++column)
          carry.errors(row)[column] = w.as<float>()[row * k + column] - values[column - from];
      }));
    }
    const int64_t group = begin / length;
    LUTRA_TRY(
        for_long_rows(context, rows, [&](int64_t row) { fit(row, group, compensated + row * length, end - begin); }));
    for (int64_t from = begin; from < end; from += kFeedbackBlock) {
      const int64_t to = std::min(end, from + kFeedbackBlock);
      LUTRA_TRY(carry.reach(context, from, to - from));
      LUTRA_TRY(for_rows(context, rows, [&](int64_t row) {
        BlockFeedback block = block_of(row, from, to);
        round(row, group, from, to, block);
      }));
    }
    return ok_status();
  }
};

Status check(Context& context, const GridOptions& options, const TensorView& w, const TensorView& m_factor,
             const TensorView& scales, const TensorView& zeros, const TensorView& codes, const TensorView& loss) {
  LUTRA_TRY(check_grid_fit(context, options, w, scales, zeros));
  LUTRA_TRY(require_rank(codes, 2, "gptq: codes must have 2 dimensions"));
  LUTRA_TRY(require_rank(loss, 1, "gptq: loss must have 1 dimension"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "gptq: codes must be u8"));
  LUTRA_TRY(require_dtype(loss, Dtype::kF64, "gptq: loss must be f64"));
  LUTRA_TRY(require_same_shape(w, codes, "gptq: shape of codes, against shape of w"));
  LUTRA_TRY(require_equal(loss.shape[0], w.shape[0], "gptq: elements of loss, against rows of w"));
  return check_factor(m_factor, w.shape[1]);
}

}  // namespace

Status gptq_dynamic_pass(Context& context, const GridOptions& options, const TensorView& w, const TensorView& m_factor,
                         const TensorView& scales, const TensorView& zeros, const TensorView& codes,
                         const TensorView& loss) {
  LUTRA_TRY(check(context, options, w, m_factor, scales, zeros, codes, loss));
  const int64_t rows = w.shape[0], k = w.shape[1], length = group_length(options.group_size, k);
  const bool wide = length > kFeedbackBlock;
  const Matrix64 m = upper_triangle(m_factor);
  FeedbackCarry carry(m, rows);
  const AlignedBuffer compensated(wide ? static_cast<size_t>(rows * length) * sizeof(float) : 0);
  if (!carry.allocated() || !compensated) return out_of_memory(2 * carry.bytes());
  const DynamicPass pass{
      options, w, m, scales, zeros, codes.as<uint8_t>(), loss.as<double>(), carry, compensated.as<float>()};
  std::fill_n(pass.loss, rows, 0.0);
  const int64_t span = wide ? length : kFeedbackBlock / length * length;
  for (int64_t begin = 0; begin < k; begin += span) {
    const int64_t end = std::min(k, begin + span);
    LUTRA_TRY(wide ? pass.run_wide_group(context, begin, end) : pass.run_groups(context, begin, end));
  }
  for (int64_t row = 0; row < rows; ++row)
    if (!std::isfinite(pass.loss[row])) return error(Code::kNonFinite, "gptq: the feedback of this row overflows", row);
  return check_scales(scales);
}

}  // namespace lutra
