// Rotary embeddings of q and k and the way of k and v into the caches, in one launch: one thread a pair of elements.
#pragma once

#include "cuda/abi.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct RopeKernel {
  using Arguments = LutraCudaRope;
  static constexpr int kThreads = 256;

  // Pairs of a token: heads of q, then of k, then of v.
  static constexpr int64_t pairs(const Arguments& args) {
    const int64_t heads = (args.q ? args.heads : 0) + (args.k ? args.kv_heads : 0) + (args.v ? args.kv_heads : 0);
    return heads * (args.head_dim / 2);
  }

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t*) {
    const int half = args.head_dim / 2;
    const int q_heads = args.q ? args.heads : 0;
    const int k_heads = args.k ? args.kv_heads : 0;
    const int heads = q_heads + k_heads + (args.v ? args.kv_heads : 0);
    const int64_t i = static_cast<int64_t>(block_index()) * kThreads + thread_index();
    const int token = static_cast<int>(i / half / heads);
    const int head = static_cast<int>(i / half % heads);
    const int64_t at = load(args.position) + static_cast<int64_t>(token);
    if (token >= args.tokens || at < 0 || at >= args.capacity) return;
    const int pair = static_cast<int>(i % half);
    if (head < q_heads) {
      turn(args, args.q + (static_cast<int64_t>(token) * args.heads + head) * args.head_dim, at, pair);
      return;
    }
    const bool is_key = head < q_heads + k_heads;
    const int kv_head = head - q_heads - (is_key ? 0 : k_heads);
    const int64_t in = (static_cast<int64_t>(token) * args.kv_heads + kv_head) * args.head_dim;
    const int64_t out = (at * args.kv_heads + kv_head) * args.head_dim;
    if (is_key) turn(args, args.k + in, at, pair);
    const float* const from = (is_key ? args.k : args.v) + in;
    void* const cache = is_key ? args.keys : args.values;
    if (!cache) return;
    store_float(cache, out + pair, args.cache_dtype, from[pair]);
    store_float(cache, out + pair + half, args.cache_dtype, from[pair + half]);
  }

 private:
  LUTRA_DEVICE static void turn(const Arguments& args, float* head, int64_t at, int pair) {
    if (!args.cos_sin) return;
    const int half = args.head_dim / 2;
    const float cosine = load(args.cos_sin + at * args.head_dim + pair);
    const float sine = load(args.cos_sin + at * args.head_dim + half + pair);
    const float a = head[pair];
    const float b = head[pair + half];
    head[pair] = multiply_add(a, cosine, -(b * sine));
    head[pair + half] = multiply_add(b, cosine, a * sine);
  }
};

}  // namespace lutra::cuda
