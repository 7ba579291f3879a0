// Prints the fp32 multiply-add peak of this machine in GFLOP/s, one thread and all of them: the limit that dense
// kernels are compared with. Built with -DLUTRA_BENCH=ON.
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>

namespace {

constexpr int kChains = 12;  // enough independent sums to cover the latency of two units
constexpr int kRounds = 20'000'000;

__attribute__((target("avx512f"))) float run_avx512() {
  __m512 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f);
  for (int r = 0; r < kRounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], a, a);
  }
  __m512 all = sum[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sum[i]);
  return _mm512_reduce_add_ps(all);
}

__attribute__((target("avx2,fma"))) float run_avx2() {
  __m256 sum[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f);
  for (int r = 0; r < kRounds; ++r) {
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

}  // namespace

int main() {
  const bool wide = __builtin_cpu_supports("avx512f");
  if (!wide && !__builtin_cpu_supports("fma")) return std::printf("{ \"error\": \"no FMA\" }\n"), 1;
  const double flops = 2.0 * kChains * kRounds * (wide ? 16 : 8);
  const unsigned processors = std::thread::hardware_concurrency();
  std::vector<float> sink(processors);
  double rate[2] = {};
  for (int all = 0; all < 2; ++all) {
    const unsigned count = all ? processors : 1;
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < count; ++t) threads.emplace_back([&, t] { sink[t] = wide ? run_avx512() : run_avx2(); });
    for (std::thread& thread : threads) thread.join();
    rate[all] = count * flops / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / 1e9;
  }
  float used = 0;  // keeps the sums alive
  for (float value : sink) used += value;
  std::printf("{ \"oneThread\": %.1f, \"allThreads\": %.1f, \"check\": %.3g }\n", rate[0], rate[1],
              static_cast<double>(used));
}
#else
int main() { return std::printf("{ \"error\": \"not an x86-64 processor\" }\n"), 1; }
#endif
