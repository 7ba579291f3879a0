// lut_gemm on one matrix: time, packed bytes a second and the error of the very result that was timed, for every
// version this machine runs. Prints, judges nothing.
//
//   lut_gemm_bench [rows=4096] [cols=4096] [tokens=1] [group=128] [bits=234] [kinds=up] [modes=fae] [lanes=12]
//                  [sets=avx512vbmi,avx512,avxvnni,avx2,scalar] [cold=0]
//
// Hot: the same matrix again and again. Cold: calls go through copies of the matrix, over a gigabyte together, and
// between two calls the same lanes read as many bytes of another copy: the last column is the quotient of the medians.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/half.h"
#include "ops/lut_gemm_with.h"

using namespace lutra;

namespace {

constexpr double kRotation = 1.1e9;

struct Options {
  int64_t rows = 4096;
  int64_t cols = 4096;
  int64_t tokens = 1;
  int64_t group = 128;
  std::string bits = "234";
  std::string kinds = "up";
  std::string modes = "fae";
  std::string lanes = "12";
  std::string sets = "avx512vbmi,avx512,avxvnni,avx2,scalar";
  bool cold = false;
};

// Random codes, f16 scales and zero codes (uniform) or f16 offsets (planes) in tile order, in mappings like those of
// the product. Codes of padding are random too: rows and cols are multiples.
struct Weights {
  PackedLayout layout;
  AlignedBuffer codes;
  AlignedBuffer scales;
  AlignedBuffer offsets;

  Weights(const Options& options, int bits, WeightKind kind) {
    layout.rows = options.rows;
    layout.cols = options.cols;
    layout.group_size = options.group;
    layout.bits = bits;
    layout.kind = kind;
    layout.offset_kind = kind == WeightKind::kUniform ? OffsetKind::kZeroCode : OffsetKind::kReal;
    std::mt19937 random(1);
    codes = AlignedBuffer(static_cast<size_t>(layout.codes_words()) * 4);
    scales = AlignedBuffer(static_cast<size_t>(layout.scales_elements()) * 2);
    offsets = AlignedBuffer(static_cast<size_t>(layout.offsets_elements()) * (zero_codes() ? 1 : 2));
    for (int64_t i = 0; i < layout.codes_words(); ++i) codes.as<uint32_t>()[i] = static_cast<uint32_t>(random());
    for (int64_t i = 0; i < layout.scales_elements(); ++i)
      scales.as<uint16_t>()[i] = float_to_half(0.01f + static_cast<float>(random() % 1000) * 1e-5f);
    for (int64_t i = 0; i < layout.offsets_elements(); ++i) {
      if (zero_codes())
        offsets.as<uint8_t>()[i] = static_cast<uint8_t>(random() % (1u << bits));
      else
        offsets.as<uint16_t>()[i] = float_to_half(static_cast<float>(random() % 1000) * -2e-5f);
    }
  }
  Weights(const Weights& other)
      : layout(other.layout), codes(copy(other.codes)), scales(copy(other.scales)), offsets(copy(other.offsets)) {}

  bool zero_codes() const { return layout.offset_kind == OffsetKind::kZeroCode; }
  PackedView view() const { return {layout, codes.as<uint32_t>(), scales.as(), offsets.as(), {}}; }
  double bytes() const { return static_cast<double>(codes.bytes() + scales.bytes() + offsets.bytes()); }

  static AlignedBuffer copy(const AlignedBuffer& source) {
    AlignedBuffer target(source.bytes());
    std::memcpy(target.as(), source.as(), source.bytes());
    return target;
  }
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Reads every byte of a matrix once.
uint64_t read_through(Context& context, const Weights& weights) {
  constexpr int64_t kPart = 1 << 18;
  static uint64_t sink[1 << 16];
  const auto* words = weights.codes.as<uint64_t>();
  const int64_t count = static_cast<int64_t>(weights.codes.bytes() / 8);
  context.parallel((count + kPart / 8 - 1) / (kPart / 8), [&](int64_t part) {
    const int64_t first = part * (kPart / 8);
    const int64_t last = std::min(count, first + kPart / 8);
    uint64_t sums[16] = {};
    int64_t i = first;
    for (; i + 16 <= last; i += 16)
      for (int64_t j = 0; j < 16; ++j) sums[j] += words[i + j];
    uint64_t sum = 0;
    for (uint64_t s : sums) sum += s;
    sink[part & 0xffff] = sum;
  });
  return sink[0];
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

struct Problem {
  Options options;
  std::vector<Weights> copies;
  std::vector<float> x;
  std::vector<float> y;
  TensorView xs;
  TensorView ys;

  Problem(const Options& o, int bits, WeightKind kind)
      : options(o), x(static_cast<size_t>(o.tokens * o.cols)), y(static_cast<size_t>(o.tokens * o.rows)) {
    copies.emplace_back(o, bits, kind);
    const auto wanted = static_cast<size_t>(o.cold ? std::ceil(kRotation / copies[0].bytes()) : 1.0);
    copies.reserve(wanted);
    while (copies.size() < wanted) copies.emplace_back(copies[0]);
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& value : x) value = normal(random);
    xs = {x.data(), Dtype::kF32, 2, {o.tokens, o.cols}};
    ys = {y.data(), Dtype::kF32, 2, {o.tokens, o.rows}};
  }
};

void measure(Problem& problem, const LutGemmKernels& set, Mode mode, int lanes) {
  Context context;
  const auto pool = ThreadPool::acquire();
  context.pool = pool.get();
  context.threads = lanes;
  std::vector<double> calls;
  std::vector<double> probes;
  const size_t count = problem.copies.size();
  double spent = 0;
  for (size_t i = 0; i < 20 || (spent < (problem.options.cold ? 0.6 : 0.15) && i < 4000); ++i) {
    const double start = now();
    if (!lut_gemm_with(set, context, problem.copies[i % count].view(), problem.xs, problem.ys, mode).ok()) return;
    calls.push_back(now() - start);
    spent += calls.back();
    if (!problem.options.cold) continue;
    const double probe = now();
    read_through(context, problem.copies[(i + count / 2) % count]);
    probes.push_back(now() - probe);
  }
  const Weights& weights = problem.copies[0];
  const double lowest = *std::min_element(calls.begin(), calls.end());
  const double seconds = median(calls);
  const char* names[] = {"exact", "accurate", "fast"};
  const double products = static_cast<double>(problem.options.rows * problem.options.cols * problem.options.tokens);
  std::printf("%-10s %-8s %s%d %d lanes  %8.1f us (min %8.1f)  %6.2f GB/s  %7.1f Gweights/s  nmse %.1e", set.name,
              names[static_cast<int>(mode)], weights.zero_codes() ? "uniform" : "planes ", weights.layout.bits, lanes,
              seconds * 1e6, lowest * 1e6, weights.bytes() / seconds * 1e-9, products / seconds * 1e-9,
              nmse(weights, problem.x, problem.y, problem.options.tokens));
  if (!probes.empty()) {
    const double rate = static_cast<double>(weights.codes.bytes()) / median(probes);
    std::printf("  probe %6.2f GB/s  share %5.1f %%", rate * 1e-9, 100 * weights.bytes() / seconds / rate);
  }
  std::printf("\n");
  std::fflush(stdout);
}

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t at = argument.find('=');
    if (at == std::string::npos) return false;
    const std::string key = argument.substr(0, at);
    const std::string value = argument.substr(at + 1);
    const int64_t number = std::atoll(value.c_str());
    if (key == "rows")
      o.rows = std::max<int64_t>(64, number / 64 * 64);
    else if (key == "cols")
      o.cols = std::max<int64_t>(128, number / 128 * 128);
    else if (key == "tokens")
      o.tokens = std::max<int64_t>(1, number);
    else if (key == "group")
      o.group = number;
    else if (key == "bits")
      o.bits = value;
    else if (key == "kinds")
      o.kinds = value;
    else if (key == "modes")
      o.modes = value;
    else if (key == "lanes")
      o.lanes = value;
    else if (key == "sets")
      o.sets = value;
    else if (key == "cold")
      o.cold = number != 0;
    else
      return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: lut_gemm_bench [rows=] [cols=] [tokens=] [group=] [bits=234] [kinds=up] [modes=fae] "
                 "[lanes=12] [sets=avx512vbmi,avx512,avxvnni,avx2,scalar] [cold=0]\n");
    return 2;
  }
  std::printf("%lldx%lld, %lld tokens, groups of %lld, f16 scales, %s\n", static_cast<long long>(options.rows),
              static_cast<long long>(options.cols), static_cast<long long>(options.tokens),
              static_cast<long long>(options.group), options.cold ? "cold" : "hot");
  for (char kind : options.kinds)
    for (char bits : options.bits) {
      Problem problem(options, bits - '0', kind == 'p' ? WeightKind::kPlanes : WeightKind::kUniform);
      for (size_t at = 0; at < options.sets.size();) {
        const size_t comma = std::min(options.sets.find(',', at), options.sets.size());
        const LutGemmKernels* set = lut_gemm_kernels(options.sets.substr(at, comma - at).c_str());
        at = comma + 1;
        if (!set) continue;
        for (char mode : options.modes)
          for (char lanes : options.lanes)
            measure(problem, *set,
                    mode == 'f'   ? Mode::kFast
                    : mode == 'a' ? Mode::kAccurate
                                  : Mode::kExact,
                    lanes - '0');
      }
    }
}
