// Prints the fp32 multiply-add peak of this machine in GFLOP/s, on as many threads as it is told. Built with
// -DLUTRA_BENCH=ON.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#if defined(__x86_64__)
#include "fma_rate.h"

int main(int argc, char** argv) {
  const bool wide = __builtin_cpu_supports("avx512f");
  if (!wide && !__builtin_cpu_supports("fma")) return std::printf("{ \"error\": \"no FMA\" }\n"), 1;
  constexpr int64_t kRounds = 20'000'000;
  const unsigned threads = static_cast<unsigned>(std::max(1, argc > 1 ? std::atoi(argv[1]) : 1));
  const lutra::bench::FmaRate rate = lutra::bench::fma_rate(threads, kRounds, wide);
  std::printf("{ \"gigaflops\": %.1f, \"check\": %.3g }\n", rate.flops_per_second / 1e9, static_cast<double>(rate.sum));
}
#else
int main() { return std::printf("{ \"error\": \"not an x86-64 processor\" }\n"), 1; }
#endif
