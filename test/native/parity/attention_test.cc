#include "kernels/attention/attention.h"

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// Scores and mixtures of `rows` queries over `count` keys; the next head's columns lie between rows of keys.
void check_shape(const AttentionKernels& kernels, int64_t rows, int64_t count, int64_t head_dim, Distribution d) {
  const int64_t stride = head_dim + 3;
  const size_t key_size = static_cast<size_t>((count - 1) * stride + head_dim);
  Guarded<float> q(static_cast<size_t>(rows * head_dim), 1), keys(key_size, 2), values(key_size, 3);
  fill(q.data(), q.size(), d, 1);
  fill(keys.data(), keys.size(), Distribution::kNormal, 2);
  fill(values.data(), values.size(), Distribution::kNormal, 3);
  const float* queries[kAttentionRows];
  for (int64_t r = 0; r < rows; ++r) queries[r] = q.data() + r * head_dim;
  const int64_t row_length = count + 1;
  Guarded<float> scores(static_cast<size_t>((rows - 1) * row_length + count), 1);
  kernels.scores(queries, rows, keys.data(), stride, count, head_dim, 0.37f, scores.data(), row_length);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < count; ++j) {
      double sum = 0;
      double size = 0;
      for (int64_t i = 0; i < head_dim; ++i) {
        const double term = static_cast<double>(queries[r][i]) * keys[static_cast<size_t>(j * stride + i)];
        sum += term;
        size += std::fabs(term);
      }
      CHECK_LE(std::fabs(scores[static_cast<size_t>(r * row_length + j)] - 0.37f * sum), 1e-6 * size + 1e-44);
    }
    if (r > 0) CHECK(std::isnan(scores[static_cast<size_t>(r * row_length - 1)]));  // between rows: not ours
  }
  Guarded<float> out(static_cast<size_t>(rows * head_dim), 1);
  float* outputs[kAttentionRows];
  for (int64_t r = 0; r < rows; ++r) outputs[r] = out.data() + r * head_dim;
  std::fill_n(out.data(), out.size(), 2.0f);
  kernels.mix(scores.data(), row_length, rows, values.data(), stride, count, head_dim, outputs);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < head_dim; ++i) {
      double sum = 2.0;
      double size = 2.0;
      for (int64_t j = 0; j < count; ++j) {
        const double term = static_cast<double>(scores[static_cast<size_t>(r * row_length + j)]) *
                            values[static_cast<size_t>(j * stride + i)];
        sum += term;
        size += std::fabs(term);
      }
      CHECK_LE(std::fabs(outputs[r][i] - sum), 3e-6 * size);
    }
}

void check_parity(const AttentionKernels& kernels) {
  for (const Distribution d : {Distribution::kNormal, Distribution::kOutlier, Distribution::kZero})
    for (int64_t rows = 1; rows <= kAttentionRows; ++rows)
      for (const int64_t count : {1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 130})
        for (const int64_t head_dim : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 80, 127, 128, 129})
          if (!quick() || (count + head_dim) % 3 == 0) check_shape(kernels, rows, count, head_dim, d);
}

void scores_past_the_end(const float* const* q, int64_t rows, const float* keys, int64_t stride, int64_t count,
                         int64_t head_dim, float scale, float* scores, int64_t scores_stride) {
  attention_scalar.scores(q, rows, keys, stride, count, head_dim, scale, scores, scores_stride);
  // One store too many in a row that another row follows.
  if (rows > 1) scores[count] = 0.0f;
}
void mix_without_the_last_key(const float* weights, int64_t weights_stride, int64_t rows, const float* values,
                              int64_t stride, int64_t count, int64_t head_dim, float* const* out) {
  attention_scalar.mix(weights, weights_stride, rows, values, stride, count - (count % 4 == 1), head_dim, out);
}

bool sees(const AttentionKernels& mutant) {
  return catches([&] { check_parity(mutant); });
}

}  // namespace

LUTRA_TEST(attention, every_version_agrees_with_the_reference) {
  for (const AttentionKernels* kernels : versions<AttentionKernels>(attention_kernels)) check_parity(*kernels);
}

LUTRA_TEST(attention, the_check_sees_planted_faults) {
  AttentionKernels mutant = attention_scalar;
  mutant.scores = scores_past_the_end;
  const bool saw_scores = sees(mutant);
  mutant = attention_scalar;
  mutant.mix = mix_without_the_last_key;
  const bool saw_mix = sees(mutant);
  CHECK(saw_scores);
  CHECK(saw_mix);
}
