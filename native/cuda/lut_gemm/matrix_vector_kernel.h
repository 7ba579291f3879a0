// Plain products of a 16-bit or int8 matrix with a few tokens, one warp a row: the naive form's A x and B t, and the
// fp16 product that quantized ones are measured against.
#pragma once

#include "cuda/lut_gemm/decode.h"
#include "cuda/lut_gemm/stored.h"

namespace lutra::cuda {

struct MatrixVectorArguments {
  const void* m = nullptr;  // [rows, cols]
  const float* scales = nullptr;
  const void* x = nullptr;  // [tokens, cols]
  float* y = nullptr;       // [tokens, rows]
  int64_t rows = 0;
  int64_t cols = 0;
  int32_t tokens = 0;
  int32_t m_dtype = 0;
  int32_t x_dtype = 0;
};

// Loads of a lane that are on their way together.
constexpr int kVectorLoads = 4;

LUTRA_DEVICE void multiply_row(const MatrixVectorArguments& args) {
  const int lane = thread_index() % kWarp;
  const int64_t row = static_cast<int64_t>(block_index()) * (block_threads() / kWarp) + thread_index() / kWarp;
  if (row >= args.rows) return;
  constexpr int kStride = kWarp * 8;
  for (int token = 0; token < args.tokens; ++token) {
    float sum = 0.0f;
    for (int64_t first = lane * 8; first < args.cols; first += kStride * kVectorLoads) {
      float m[kVectorLoads][8];
      LUTRA_UNROLL
      for (int v = 0; v < kVectorLoads; ++v) {
        const int64_t k = first + v * kStride;
        load_eight(args.m, row * args.cols + k, args.cols - k, args.m_dtype, m[v]);
      }
      LUTRA_UNROLL
      for (int v = 0; v < kVectorLoads; ++v) {
        const int64_t k = first + v * kStride;
        float x[8];
        load_eight(args.x, token * args.cols + k, args.cols - k, args.x_dtype, x);
        LUTRA_UNROLL
        for (int i = 0; i < 8; ++i) sum = multiply_add(m[v][i], x[i], sum);
      }
    }
    LUTRA_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane == 0) args.y[token * args.rows + row] = args.scales ? sum * load(args.scales + row) : sum;
  }
}

struct AddArguments {
  const float* u = nullptr;
  float* y = nullptr;
  int64_t count = 0;
  int64_t period = 0;  // elements of u
};

LUTRA_DEVICE void add_element(const AddArguments& args) {
  const int64_t i = static_cast<int64_t>(block_index()) * block_threads() + thread_index();
  if (i < args.count) args.y[i] += args.u[i % args.period];
}

}  // namespace lutra::cuda
