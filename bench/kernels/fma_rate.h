// The loop that measures a core's fp32 multiply-add peak: what dense kernels are compared with. x86-64 only.
#pragma once

#include <immintrin.h>

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace lutra::bench {

constexpr int kChains = 12;  // enough independent sums to cover the latency of two units

__attribute__((target("avx512f"))) inline float multiply_add_avx512(int64_t rounds) {
  __m512 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], a, a);
  }
  __m512 all = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sum[i]);
  return _mm512_reduce_add_ps(all);
}

__attribute__((target("avx2,fma"))) inline float multiply_add_avx2(int64_t rounds) {
  __m256 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], a, a);
  }
  float out[8];
  __m256 all = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) all = _mm256_add_ps(all, sum[i]);
  _mm256_storeu_ps(out, all);
  return out[0];
}

struct FmaRate {
  double flops_per_second;
  float sum;  // of all threads: printed, so that no loop is left out
};

// `rounds` of kChains multiply-adds on each of `threads` threads, in vectors of 16 (wide) or 8 floats.
inline FmaRate fma_rate(unsigned threads, int64_t rounds, bool wide) {
  std::vector<float> sums(threads);
  const auto loop = [&](unsigned t) { sums[t] = wide ? multiply_add_avx512(rounds) : multiply_add_avx2(rounds); };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (unsigned t = 1; t < threads; ++t) others.emplace_back(loop, t);
  loop(0);
  for (std::thread& other : others) other.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  float sum = 0;
  for (float value : sums) sum += value;
  return {2.0 * kChains * static_cast<double>(rounds) * (wide ? 16 : 8) * threads / seconds, sum};
}

}  // namespace lutra::bench
