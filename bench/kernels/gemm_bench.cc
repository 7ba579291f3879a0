// Dense fp32 products and the Gram matrix against the multiply-add peak, sampled in turn: the share is the median over
// pairs of neighbours. Prints, judges nothing. Usage: gemm_bench [rows [columns [k]]]; LUTRA_ISA chooses the version.
#include <cstdio>

#if defined(__x86_64__)
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

#include "fma_rate.h"
#include "kernels/gemm/gemm.h"
#include "ops/linear.h"

using namespace lutra;

namespace {

constexpr int kPairs = 15;

struct Matrix {
  int64_t rows, cols;
  std::vector<float> values;

  Matrix(int64_t r, int64_t c, unsigned seed) : rows(r), cols(c), values(static_cast<size_t>(r * c)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(random);
  }
  TensorView view() { return {values.data(), Dtype::kF32, 2, {rows, cols}}; }
  double at(int64_t row, int64_t col) const {
    return static_cast<double>(values[static_cast<size_t>(row * cols + col)]);
  }
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One line: the product's rate, the peak beside it and the share.
template <typename Product, typename Error>
void measure(const char* name, int lanes, double flops, Product&& product, Error&& error) {
  const bool wide = !std::strcmp(gemm_kernels().name, "avx512");
  constexpr int64_t kRounds = 5'000'000;  // some ten milliseconds
  std::vector<double> rates, peaks, shares;
  float used = 0;
  bool ok = product().ok();
  for (int i = 0; i < kPairs; ++i) {
    const bench::FmaRate peak = bench::fma_rate(static_cast<unsigned>(lanes), kRounds, wide);
    const auto begin = std::chrono::steady_clock::now();
    ok = product().ok() && ok;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    used += peak.sum;
    rates.push_back(flops / seconds * 1e-9);
    peaks.push_back(peak.flops_per_second * 1e-9);
    shares.push_back(rates.back() / peaks.back());
  }
  if (!ok) return void(std::printf("%s failed\n", name));
  std::printf("%-6s %-6s %d lanes  %7.1f GFLOP/s  peak %7.1f  share %5.1f %%  nmse %.1e%s\n", gemm_kernels().name, name,
              lanes, median(rates), median(peaks), 100 * median(shares), error(), std::isnan(used) ? " " : "");
  std::fflush(stdout);
}

void measure_linear(Context& context, int lanes, int64_t rows, int64_t columns, int64_t k) {
  Matrix x(rows, k, 1), w(columns, k, 2), y(rows, columns, 3);
  const auto product = [&] { return linear(context, x.view(), w.view(), y.view()); };
  measure("gemm", lanes, 2.0 * static_cast<double>(rows) * static_cast<double>(columns * k), product, [&] {
    double off = 0, power = 0;
    for (int64_t t = 0; t < rows; t += 101)
      for (int64_t r = 0; r < columns; r += 7) {
        double exact = 0;
        for (int64_t kk = 0; kk < k; ++kk) exact += x.at(t, kk) * w.at(r, kk);
        off += std::pow(y.at(t, r) - exact, 2);
        power += exact * exact;
      }
    return off / power;
  });
}

void measure_gram(Context& context, int lanes, int64_t rows, int64_t k) {
  Matrix x(rows, k, 1);
  std::vector<double> gram(static_cast<size_t>(k * k));
  const TensorView view{gram.data(), Dtype::kF64, 2, {k, k}};
  double calls = 0;
  const auto product = [&] {
    ++calls;
    return accumulate_gram(context, x.view(), view);
  };
  const double flops = static_cast<double>(rows) * static_cast<double>(k) * static_cast<double>(k + 1);
  measure("syrk", lanes, flops, product, [&] {
    double off = 0, power = 0;
    for (int64_t i = 0; i < k; i += 101)
      for (int64_t j = 0; j < k; j += 7) {
        double exact = 0;
        for (int64_t t = 0; t < rows; ++t) exact += x.at(t, i) * x.at(t, j);
        off += std::pow(gram[static_cast<size_t>(i * k + j)] / calls - exact, 2);
        power += exact * exact;
      }
    return off / power;
  });
}

}  // namespace

int main(int argc, char** argv) {
  const auto size = [&](int i, int64_t otherwise) {
    return argc > i ? std::max<int64_t>(1, std::atoll(argv[i])) : otherwise;
  };
  if (!std::strcmp(gemm_kernels().name, "scalar")) return std::printf("no multiply-add instructions\n"), 1;
  const int64_t rows = size(1, 2048);
  const int64_t columns = size(2, rows);
  const int64_t k = size(3, columns);
  std::printf("gemm [%lld, %lld] x [%lld, %lld]^T, syrk of [%lld, %lld]\n", static_cast<long long>(rows),
              static_cast<long long>(k), static_cast<long long>(columns), static_cast<long long>(k),
              static_cast<long long>(rows), static_cast<long long>(k));
  const auto pool = ThreadPool::acquire();
  for (int lanes = 1; lanes <= pool->lanes(); lanes += std::max(1, pool->lanes() - 1)) {
    Context context;
    context.pool = pool.get();
    context.threads = lanes;
    measure_linear(context, lanes, rows, columns, k);
    measure_gram(context, lanes, rows, k);
  }
}
#else
int main() { return std::printf("not an x86-64 processor\n"), 1; }
#endif
