#include "quantize/column_feedback.h"

#include <algorithm>

#include "core/checked.h"
#include "ops/operand.h"
#include "ops/product.h"

namespace lutra {

FeedbackCarry::FeedbackCarry(const Matrix64& m, int64_t rows)
    : m_(m),
      rows_(rows),
      k_(m.cols),
      errors_(static_cast<size_t>(rows * k_) * sizeof(float)),
      panel_(static_cast<size_t>(k_ * kFeedbackBlock) * sizeof(float)),
      carry_(static_cast<size_t>(rows * kFeedbackBlock) * sizeof(float)) {}

Status FeedbackCarry::reach(Context& context, int64_t begin, int64_t width) {
  constexpr int64_t kPart = 256;
  begin_ = begin;
  if (begin == 0) return ok_status();
  float* panel = panel_.as<float>();
  double pivots[kFeedbackBlock];
  for (int64_t j = 0; j < width; ++j) pivots[j] = m_.at(begin + j, begin + j);
  LUTRA_TRY(finished(context.parallel(ceil_div(begin, kPart), [&](int64_t part) {
    for (int64_t i = part * kPart; i < std::min(begin, (part + 1) * kPart); ++i) {
      const double* line = m_.row(i) + begin;
      for (int64_t j = 0; j < width; ++j) panel[i * width + j] = static_cast<float>(line[j] / pivots[j]);
    }
  })));
  const RightOperand right{.data = panel, .stride = width, .k_major = true};
  return product(context, rows_, width, begin, errors_.as<float>(), k_, right, carry_.as<float>(), kFeedbackBlock);
}

}  // namespace lutra
