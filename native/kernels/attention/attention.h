// The two products of attention for up to four query rows that share a key-value head.
#pragma once

#include <cstdint>

namespace lutra {

constexpr int64_t kAttentionRows = 4;

struct AttentionKernels {
  const char* name;
  // scores[r * scores_stride + j] = scale * (q[r] . keys[j * stride ..]) over head_dim, for j < count.
  // The bits of a score depend on head_dim alone.
  void (*scores)(const float* const* q, int64_t rows, const float* keys, int64_t stride, int64_t count,
                 int64_t head_dim, float scale, float* scores, int64_t scores_stride);
  // out[r][0 .. head_dim) += sum over j < count of weights[r * weights_stride + j] * values[j * stride ..], in
  // ascending j.
  void (*mix)(const float* weights, int64_t weights_stride, int64_t rows, const float* values, int64_t stride,
              int64_t count, int64_t head_dim, float* const* out);
};

extern const AttentionKernels attention_scalar;
extern const AttentionKernels attention_avx2;
extern const AttentionKernels attention_avx512;

// The best version for this machine, and that of the named instruction set; null where there is none.
const AttentionKernels& attention_kernels();
const AttentionKernels* attention_kernels(const char* name);

// The answer in fp64 for one query row over keys[0 .. count): softmax(scale * q K^T) V.
// `weights` has room for count numbers and receives the softmax.
void attention_reference(const float* q, const float* keys, const float* values, int64_t stride, int64_t count,
                         int64_t head_dim, double scale, double* weights, double* out);

}  // namespace lutra
