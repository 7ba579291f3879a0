// RMSNorm with the residual before it: one block a row. A thread reads and writes the same elements throughout, so y
// may be x or what is added.
#pragma once

#include "cuda/abi.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct RmsNormKernel {
  using Arguments = LutraCudaRmsNorm;
  static constexpr int kThreads = 512;
  static constexpr int kSharedBytes = kThreads / kWarp * static_cast<int>(sizeof(float));

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t* shared) {
    const int64_t row = block_index() * args.width;
    float squares = 0.0f;
    for (int64_t i = row + thread_index(); i < row + args.width; i += kThreads) {
      float x = args.x[i];
      if (args.added) args.x[i] = x += args.added[i];
      squares = multiply_add(x, x, squares);
    }
    const float mean = block_sum(squares, reinterpret_cast<float*>(shared)) / static_cast<float>(args.width);
    const float factor = 1.0f / square_root(mean + args.epsilon);
    for (int64_t i = row + thread_index(); i < row + args.width; i += kThreads)
      args.y[i] = args.x[i] * factor * stored_float(args.weight, i - row, args.weight_dtype);
  }

 private:
  // The same number in every thread, added in the order of lanes and then of warps.
  LUTRA_DEVICE static float block_sum(float value, float* warps) {
    LUTRA_UNROLL
    for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    if (thread_index() % kWarp == 0) warps[thread_index() / kWarp] = value;
    sync_block();
    float sum = 0.0f;
    LUTRA_UNROLL
    for (int warp = 0; warp < kThreads / kWarp; ++warp) sum += warps[warp];
    return sum;
  }
};

}  // namespace lutra::cuda
