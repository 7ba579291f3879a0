// lut_gemm on one matrix: time, packed bytes a second and the error of the very result that was timed, for every
// version this machine runs. Prints, judges nothing. Usage: lut_gemm_bench [rows cols [tokens]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "core/half.h"
#include "ops/lut_gemm_with.h"
#include "platform/isa.h"

using namespace lutra;

namespace {

// Random codes and f16 scales in tile order; no offsets. Codes of padding are random too: rows and cols are multiples.
struct Weights {
  PackedLayout layout;
  std::vector<uint32_t> codes;
  std::vector<uint16_t> scales;

  Weights(int64_t rows, int64_t cols, int bits, WeightKind kind) {
    layout.rows = rows;
    layout.cols = cols;
    layout.group_size = 128;
    layout.bits = bits;
    layout.kind = kind;
    std::mt19937 random(1);
    codes.resize(static_cast<size_t>(layout.codes_words()));
    scales.resize(static_cast<size_t>(layout.scales_elements()));
    for (uint32_t& word : codes) word = static_cast<uint32_t>(random());
    for (uint16_t& scale : scales) scale = float_to_half(0.01f + static_cast<float>(random() % 1000) * 1e-5f);
  }
  PackedView view() const { return {layout, codes.data(), scales.data(), nullptr}; }
  double bytes() const { return 4.0 * static_cast<double>(codes.size()) + 2.0 * static_cast<double>(scales.size()); }
};

double seconds_of(const LutGemmKernels& set, Context& context, const Weights& weights, const TensorView& x,
                  const TensorView& y, Mode mode) {
  double best = INFINITY;
  double spent = 0;
  for (int i = 0; i < 5 || (spent < 0.3 && i < 1000); ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (!lut_gemm_with(set, context, weights.view(), x, y, mode).ok()) return NAN;
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, taken);
    spent += taken;
  }
  return best;
}

double nmse(const Weights& weights, const std::vector<float>& x, const std::vector<float>& y, int64_t tokens) {
  const int64_t rows = weights.layout.rows;
  std::vector<double> exact(PackedLayout::kTileRows);
  double error = 0;
  double power = 0;
  for (int64_t t = 0; t < weights.layout.tiles(); t += 8)
    for (int64_t token = 0; token < tokens; token += 7) {
      const LutTile tile = lut_tile(weights.view(), t);
      lut_gemm_reference(tile, x.data() + token * weights.layout.cols, exact.data());
      for (int64_t r = 0; r < tile.rows; ++r) {
        const double value = exact[static_cast<size_t>(r)];
        error += std::pow(static_cast<double>(y[static_cast<size_t>(token * rows + t * 64 + r)]) - value, 2);
        power += value * value;
      }
    }
  return error / power;
}

void measure(int64_t rows, int64_t cols, int64_t tokens, int bits, WeightKind kind) {
  const Weights weights(rows, cols, bits, kind);
  std::vector<float> x(static_cast<size_t>(tokens * cols));
  std::vector<float> y(static_cast<size_t>(tokens * rows));
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& value : x) value = normal(random);
  const TensorView xs = {x.data(), Dtype::kF32, 2, {tokens, cols}};
  const TensorView ys = {y.data(), Dtype::kF32, 2, {tokens, rows}};
  Context context;
  const auto pool = ThreadPool::acquire();
  context.pool = pool.get();
  for (const IsaLevel& level : isa_levels_here()) {
    const LutGemmKernels* set = lut_gemm_kernels(level.name);
    if (!set) continue;
    for (Mode mode : {Mode::kFast, Mode::kAccurate, Mode::kExact}) {
      const double seconds = seconds_of(*set, context, weights, xs, ys, mode);
      const char* names[] = {"exact", "accurate", "fast"};
      std::printf("%-10s %-8s %s%d  %9.1f us  %7.2f GB/s  %8.1f Gweights/s  nmse %.1e\n", set->name,
                  names[static_cast<int>(mode)], kind == WeightKind::kPlanes ? "planes" : "uniform", bits,
                  seconds * 1e6, weights.bytes() / seconds * 1e-9,
                  static_cast<double>(rows * cols * tokens) / seconds * 1e-9, nmse(weights, x, y, tokens));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rows = argc > 2 ? std::max(64L, std::atol(argv[1]) / 64 * 64) : 4096;
  const int64_t cols = argc > 2 ? std::max(128L, std::atol(argv[2]) / 128 * 128) : 4096;
  const int64_t tokens = argc > 3 ? std::max(1L, std::atol(argv[3])) : 1;
  std::printf("%lldx%lld, %lld tokens, groups of 128, f16 scales, %d lanes\n", static_cast<long long>(rows),
              static_cast<long long>(cols), static_cast<long long>(tokens), ThreadPool::default_lanes());
  for (WeightKind kind : {WeightKind::kUniform, WeightKind::kPlanes})
    for (int bits : {2, 3, 4}) measure(rows, cols, tokens, bits, kind);
}
