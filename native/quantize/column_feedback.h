// Error feedback from column to column: what GPTQ's passes have in common.
//
// With H = M M^T, M upper triangular, column j of a row wants w_j + sum_{i<j} e_i M_ij / M_jj, e_i what was changed of
// column i. Columns are taken in blocks: what those before a block add to it is a product in fp32, what those in the
// block add runs in fp64, row by row.
#pragma once

#include "core/aligned_buffer.h"
#include "core/status.h"
#include "ops/context.h"
#include "ops/matrix64.h"

namespace lutra {

constexpr int64_t kFeedbackBlock = 128;  // columns

// What the columns before a block add to it, for all rows.
class FeedbackCarry {
 public:
  FeedbackCarry(const Matrix64& m, int64_t rows);
  bool allocated() const { return errors_ && panel_ && carry_; }
  int64_t bytes() const { return rows_ * k_ * static_cast<int64_t>(sizeof(float)); }

  // Makes ready for columns [begin, begin + width), width <= kFeedbackBlock.
  Status reach(Context& context, int64_t begin, int64_t width);

  // e of a row, [k], to be written column by column.
  float* errors(int64_t row) const { return errors_.as<float>() + row * k_; }
  // What is added to the columns of the block, divided by M_jj already; null in the first one.
  const float* of_row(int64_t row) const { return begin_ ? carry_.as<float>() + row * kFeedbackBlock : nullptr; }

 private:
  Matrix64 m_;
  int64_t rows_;
  int64_t k_;
  int64_t begin_ = 0;
  AlignedBuffer errors_;  // [rows, k]
  AlignedBuffer panel_;   // [k, kFeedbackBlock]: columns of M, divided by their diagonal
  AlignedBuffer carry_;   // [rows, kFeedbackBlock]
};

// The block's own feedback, of one row.
class BlockFeedback {
 public:
  // w: the row's weights; all columns are numbers of the matrix.
  BlockFeedback(const Matrix64& m, int64_t begin, int64_t width, const float* w, const float* carry)
      : m_(m), begin_(begin), width_(width), w_(w), carry_(carry) {}

  double pivot(int64_t column) const { return m_.at(column, column); }
  double wanted(int64_t column) const {
    const int64_t j = column - begin_;
    const double weight = w_[column];
    return weight + (carry_ ? static_cast<double>(carry_[j]) : 0.0) + feedback_[j] / pivot(column);
  }
  void add(int64_t column, double error) {
    const double* m_row = m_.row(column) + begin_;
    for (int64_t l = column - begin_ + 1; l < width_; ++l) feedback_[l] += error * m_row[l];
  }
  // What columns [from, to) become where all of them, and all behind, make good what those before have left.
  void compensated(int64_t from, int64_t to, float* values) const {
    BlockFeedback rest = *this;
    for (int64_t column = from; column < to; ++column) {
      const double value = rest.wanted(column);
      values[column - from] = static_cast<float>(value);
      rest.add(column, static_cast<double>(w_[column]) - value);
    }
  }

 private:
  Matrix64 m_;
  int64_t begin_, width_;
  const float* w_;
  const float* carry_;
  double feedback_[kFeedbackBlock] = {};  // sum over the block's earlier columns of e_i M_ij
};

}  // namespace lutra
