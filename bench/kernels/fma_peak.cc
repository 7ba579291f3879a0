// Prints the fp32 multiply-add peak of this machine in GFLOP/s, one thread and all of them. Built with
// -DLUTRA_BENCH=ON.
#include <cstdio>

#if defined(__x86_64__)
#include "fma_rate.h"

int main() {
  const bool wide = __builtin_cpu_supports("avx512f");
  if (!wide && !__builtin_cpu_supports("fma")) return std::printf("{ \"error\": \"no FMA\" }\n"), 1;
  constexpr int64_t kRounds = 20'000'000;
  const lutra::bench::FmaRate one = lutra::bench::fma_rate(1, kRounds, wide);
  const lutra::bench::FmaRate all = lutra::bench::fma_rate(std::thread::hardware_concurrency(), kRounds, wide);
  std::printf("{ \"oneThread\": %.1f, \"allThreads\": %.1f, \"check\": %.3g }\n", one.flops_per_second / 1e9,
              all.flops_per_second / 1e9, static_cast<double>(one.sum + all.sum));
}
#else
int main() { return std::printf("{ \"error\": \"not an x86-64 processor\" }\n"), 1; }
#endif
