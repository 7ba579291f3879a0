#include "quantize/column_feedback.h"

#include <algorithm>

#include "core/checked.h"
#include "ops/operand.h"
#include "ops/product.h"

namespace lutra {

FeedbackCarry::FeedbackCarry(const double* m, int64_t rows, int64_t k)
    : m_(m),
      rows_(rows),
      k_(k),
      errors_(static_cast<size_t>(rows * k) * sizeof(float)),
      panel_(static_cast<size_t>(k * kFeedbackBlock) * sizeof(float)),
      carry_(static_cast<size_t>(rows * kFeedbackBlock) * sizeof(float)) {}

Status FeedbackCarry::reach(Context& context, int64_t begin, int64_t width) {
  constexpr int64_t kPart = 256;
  begin_ = begin;
  if (begin == 0) return ok_status();
  float* panel = panel_.as<float>();
  LUTRA_TRY(finished(context.parallel(ceil_div(begin, kPart), [&](int64_t part) {
    for (int64_t i = part * kPart; i < std::min(begin, (part + 1) * kPart); ++i)
      for (int64_t j = 0; j < width; ++j)
        panel[i * width + j] = static_cast<float>(m_[i * k_ + begin + j] / m_[(begin + j) * k_ + begin + j]);
  })));
  const RightOperand right{.data = panel, .stride = width, .k_major = true};
  return product(context, rows_, width, begin, errors_.as<float>(), k_, right, carry_.as<float>(), kFeedbackBlock);
}

}  // namespace lutra
