// Losses of a row of logits, in fp64 throughout: differences of models are small against the values they are taken of.
#include <algorithm>
#include <cmath>

#include "ops/backward.h"
#include "ops/indices.h"
#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

int64_t largest_index(const float* x, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i)
    if (x[i] > x[best]) best = i;
  return best;
}

// log sum exp of a row whose largest value is known.
double log_sum_exp(const float* x, int64_t count, double largest) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

double row_divergence(const float* reference, const float* logits, int64_t vocab) {
  const double p_log_sum = log_sum_exp(reference, vocab, reference[largest_index(reference, vocab)]);
  const double q_log_sum = log_sum_exp(logits, vocab, logits[largest_index(logits, vocab)]);
  double sum = 0;
  for (int64_t v = 0; v < vocab; ++v) {
    const double log_p = reference[v] - p_log_sum;
    const double p = std::exp(log_p);
    // p log p tends to 0: a token that the reference excludes adds nothing. A NaN must reach the sum.
    if (p != 0) sum += p * (log_p - (logits[v] - q_log_sum));
  }
  return sum;
}

}  // namespace

Status cross_entropy(Context& context, const TensorView& logits, const TensorView& target, const TensorView& loss,
                     const TensorView& top) {
  LUTRA_TRY(require_rank(logits, 2, "cross_entropy: logits must have 2 dimensions"));
  LUTRA_TRY(require_rank(target, 1, "cross_entropy: target must have 1 dimension"));
  LUTRA_TRY(require_rank(loss, 1, "cross_entropy: loss must have 1 dimension"));
  LUTRA_TRY(require_rank(top, 1, "cross_entropy: top must have 1 dimension"));
  LUTRA_TRY(require_dtype(logits, Dtype::kF32, "cross_entropy: logits must be f32"));
  LUTRA_TRY(require_dtype(target, Dtype::kI32, "cross_entropy: target must be i32"));
  LUTRA_TRY(require_dtype(loss, Dtype::kF64, "cross_entropy: loss must be f64"));
  LUTRA_TRY(require_dtype(top, Dtype::kI32, "cross_entropy: top must be i32"));
  const int64_t n = logits.shape[0];
  const int64_t vocab = logits.shape[1];
  LUTRA_TRY(require_equal(target.shape[0], n, "cross_entropy: elements of target, against rows of logits"));
  LUTRA_TRY(require_equal(loss.shape[0], n, "cross_entropy: elements of loss, against rows of logits"));
  LUTRA_TRY(require_equal(top.shape[0], n, "cross_entropy: elements of top, against rows of logits"));
  if (n > 0 && (vocab < 1 || vocab > INT32_MAX))
    return error(Code::kShape, "cross_entropy: columns of logits must be at least 1 and fit 31 bits", vocab, 1);
  Indices wanted;
  LUTRA_TRY(wanted.take(target, INT32_MIN, vocab, "cross_entropy: a target lies outside the vocabulary"));
  return finished(context.parallel(n, [&](int64_t t) {
    const float* row = logits.as<float>() + t * vocab;
    const int64_t best = largest_index(row, vocab);
    top.as<int32_t>()[t] = static_cast<int32_t>(best);
    loss.as<double>()[t] = wanted[t] < 0 ? 0.0 : log_sum_exp(row, vocab, row[best]) - row[wanted[t]];
  }));
}

Status arg_max(Context& context, const TensorView& x, const TensorView& index, const TensorView& value) {
  LUTRA_TRY(require_rank(x, 2, "arg_max: x must have 2 dimensions"));
  LUTRA_TRY(require_rank(index, 1, "arg_max: index must have 1 dimension"));
  LUTRA_TRY(require_rank(value, 1, "arg_max: value must have 1 dimension"));
  LUTRA_TRY(require_dtype(x, Dtype::kF32, "arg_max: x must be f32"));
  LUTRA_TRY(require_dtype(index, Dtype::kI32, "arg_max: index must be i32"));
  LUTRA_TRY(require_dtype(value, Dtype::kF32, "arg_max: value must be f32"));
  const int64_t n = x.shape[0];
  const int64_t cols = x.shape[1];
  LUTRA_TRY(require_equal(index.shape[0], n, "arg_max: elements of index, against rows of x"));
  LUTRA_TRY(require_equal(value.shape[0], n, "arg_max: elements of value, against rows of x"));
  if (n > 0 && (cols < 1 || cols > INT32_MAX))
    return error(Code::kShape, "arg_max: columns of x must be at least 1 and fit 31 bits", cols, 1);
  LUTRA_TRY(require_apart(index, x, "arg_max: index may not overlap x"));
  LUTRA_TRY(require_apart(value, x, "arg_max: value may not overlap x"));
  return finished(context.parallel(n, [&](int64_t t) {
    const float* row = x.as<float>() + t * cols;
    const int64_t best = largest_index(row, cols);
    const bool nan = std::any_of(row, row + cols, [](float v) { return std::isnan(v); });
    index.as<int32_t>()[t] = static_cast<int32_t>(best);
    value.as<float>()[t] = nan ? NAN : row[best];
  }));
}

Status cross_entropy_backward(Context& context, const TensorView& logits, const TensorView& target,
                              const TensorView& dlogits) {
  LUTRA_TRY(require_rank(logits, 2, "cross_entropy_backward: logits must have 2 dimensions"));
  LUTRA_TRY(require_rank(target, 1, "cross_entropy_backward: target must have 1 dimension"));
  LUTRA_TRY(require_dtype(logits, Dtype::kF32, "cross_entropy_backward: logits must be f32"));
  LUTRA_TRY(require_dtype(target, Dtype::kI32, "cross_entropy_backward: target must be i32"));
  LUTRA_TRY(require_rank(dlogits, 2, "cross_entropy_backward: dlogits must have 2 dimensions"));
  LUTRA_TRY(require_dtype(dlogits, Dtype::kF32, "cross_entropy_backward: dlogits must be f32"));
  LUTRA_TRY(require_same_shape(logits, dlogits, "cross_entropy_backward: shape of dlogits, against shape of logits"));
  const int64_t n = logits.shape[0];
  const int64_t vocab = logits.shape[1];
  LUTRA_TRY(require_equal(target.shape[0], n, "cross_entropy_backward: elements of target, against rows of logits"));
  if (n > 0 && (vocab < 1 || vocab > INT32_MAX))
    return error(Code::kShape, "cross_entropy_backward: columns of logits must be at least 1 and fit 31 bits", vocab,
                 1);
  LUTRA_TRY(require_same_or_apart(dlogits, logits, "cross_entropy_backward: dlogits may be logits, or not overlap it"));
  Indices wanted;
  LUTRA_TRY(wanted.take(target, INT32_MIN, vocab, "cross_entropy_backward: a target lies outside the vocabulary"));
  return finished(context.parallel(n, [&](int64_t t) {
    const float* row = logits.as<float>() + t * vocab;
    float* out = dlogits.as<float>() + t * vocab;
    if (wanted[t] < 0) return static_cast<void>(std::fill_n(out, vocab, 0.0F));
    const double log_sum = log_sum_exp(row, vocab, row[largest_index(row, vocab)]);
    for (int64_t v = 0; v < vocab; ++v) out[v] = static_cast<float>(std::exp(row[v] - log_sum));
    out[wanted[t]] -= 1.0F;
  }));
}

Status kl_divergence(Context& context, const TensorView& reference, const TensorView& logits,
                     const TensorView& divergence) {
  LUTRA_TRY(require_rank(reference, 2, "kl_divergence: reference must have 2 dimensions"));
  LUTRA_TRY(require_rank(logits, 2, "kl_divergence: logits must have 2 dimensions"));
  LUTRA_TRY(require_rank(divergence, 1, "kl_divergence: divergence must have 1 dimension"));
  LUTRA_TRY(require_dtype(reference, Dtype::kF32, "kl_divergence: reference must be f32"));
  LUTRA_TRY(require_dtype(logits, Dtype::kF32, "kl_divergence: logits must be f32"));
  LUTRA_TRY(require_dtype(divergence, Dtype::kF64, "kl_divergence: divergence must be f64"));
  LUTRA_TRY(require_same_shape(reference, logits, "kl_divergence: shape of logits, against shape of reference"));
  const int64_t n = logits.shape[0];
  const int64_t vocab = logits.shape[1];
  LUTRA_TRY(require_equal(divergence.shape[0], n, "kl_divergence: elements of divergence, against rows of logits"));
  if (n > 0 && vocab < 1) return error(Code::kShape, "kl_divergence: logits must have a column", vocab, 1);
  return finished(context.parallel(n, [&](int64_t t) {
    divergence.as<double>()[t] =
        row_divergence(reference.as<float>() + t * vocab, logits.as<float>() + t * vocab, vocab);
  }));
}

}  // namespace lutra
