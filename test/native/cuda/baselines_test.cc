// The kernels that others are measured against, on the host's machine of fibers: plain products, and LUT-GEMM's tables.
#include <array>

#include "../harness.h"
#include "core/checked.h"
#include "core/half.h"
#include "cuda/lut_gemm/matrix_vector_kernel.h"
#include "cuda/lut_gemm/table_kernel.h"

using namespace lutra;
using namespace lutra::cuda;
using namespace lutra::test;

namespace {

double value_of(uint16_t half) { return static_cast<double>(half_to_float(half)); }

void fill_halves(Guarded<uint16_t>& halves, float scale, uint64_t seed) {
  std::vector<float> values(halves.size());
  fill(values.data(), values.size(), Distribution::kNormal, seed);
  for (size_t i = 0; i < values.size(); ++i) halves[i] = float_to_half(values[i] * scale);
}

}  // namespace

LUTRA_TEST(cuda, plain_products_match_the_formula) {
  for (const auto& [rows, cols] : {std::array<int64_t, 2>{1, 1}, {9, 8}, {17, 300}, {3, 2056}})
    for (int tokens : {1, 3}) {
      Guarded<uint16_t> m(static_cast<size_t>(rows * cols)), x(static_cast<size_t>(tokens * cols));
      Guarded<float> y(static_cast<size_t>(tokens * rows)), scales(static_cast<size_t>(rows));
      fill_halves(m, 1.0f, 1);
      fill_halves(x, 1.0f, 2);
      fill(scales.data(), scales.size(), Distribution::kUniform, 3);
      const MatrixVectorArguments args = {m.data(), scales.data(), x.data(),   y.data(),  rows,
                                          cols,     tokens,        kStoredF16, kStoredF16};
      HostLaunch launch;
      launch.threads = 64;
      launch.blocks = static_cast<int>(ceil_div(rows, 2));
      CHECK(run_grid(launch, [&](uint8_t*) { multiply_row(args); }).empty());
      std::vector<double> answer(y.size());
      for (size_t i = 0; i < answer.size(); ++i) {
        const size_t row = i % static_cast<size_t>(rows), token = i / static_cast<size_t>(rows);
        for (size_t k = 0; k < static_cast<size_t>(cols); ++k)
          answer[i] += value_of(m[row * static_cast<size_t>(cols) + k]) *
                       value_of(x[token * static_cast<size_t>(cols) + k]) * static_cast<double>(scales[row]);
      }
      CHECK_LE(nmse(y.data(), answer.data(), answer.size()), 1e-12);
    }
}

LUTRA_TEST(cuda, adding_reaches_every_element_and_none_past_the_end) {
  for (size_t period : {70, 7}) {
    Guarded<float> u(period), y(70);
    for (size_t i = 0; i < period; ++i) u[i] = static_cast<float>(i);
    for (size_t i = 0; i < 70; ++i) y[i] = static_cast<float>(i);
    const AddArguments args = {u.data(), y.data(), 70, static_cast<int64_t>(period)};
    HostLaunch launch;
    launch.threads = 64;
    launch.blocks = 2;
    CHECK(run_grid(launch, [&](uint8_t*) { add_element(args); }).empty());
    for (size_t i = 0; i < 70; ++i) CHECK(y[i] == static_cast<float>(i + i % period));
  }
}

// fp16 tables and sums: errors as published, far over those of the decode kernel.
LUTRA_TEST(cuda, tables_match_the_formula_within_fp16) {
  for (int planes : {1, 3})
    for (const auto& [rows, cols, group] : {std::array<int64_t, 3>{2, 64, 64}, {70, 256, 128}, {2050, 128, 64}}) {
      const size_t m = static_cast<size_t>(rows), k = static_cast<size_t>(cols), p = static_cast<size_t>(planes);
      const size_t groups = static_cast<size_t>(cols / group);
      Guarded<uint32_t> codes(k / 32 * p * m), y(m / 2);
      Guarded<uint16_t> alphas(groups * p * m), bias(groups * m), x(k);
      std::mt19937_64 random(4);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint32_t>(random());
      fill_halves(alphas, 0.01f, 5);
      fill_halves(bias, 0.01f, 6);
      fill_halves(x, 1.0f, 7);
      std::memset(y.data(), 0, m * 2);
      const TableArguments args = {codes.data(), alphas.data(), bias.data(), x.data(), y.data(),
                                   rows,         cols,          group,       planes};
      HostLaunch launch;
      launch.threads = kTableThreads;
      launch.shared_bytes = kTableShared;
      launch.blocks = static_cast<int>(ceil_div(rows, kTableRows) * (cols / kTableCols));
      launch.resident = 2;
      CHECK(run_grid(launch, [&](uint8_t* shared) { table_gemv(args, shared); }).empty());
      std::vector<float> result(m);
      std::vector<double> answer(m);
      for (size_t row = 0; row < m; ++row) {
        result[row] = half_to_float(static_cast<uint16_t>(y[row / 2] >> (row % 2 * 16)));
        for (size_t c = 0; c < k; ++c) {
          const size_t g = c / static_cast<size_t>(group);
          double w = value_of(bias[g * m + row]);
          for (size_t b = 0; b < p; ++b) {
            const bool set = codes[(c / 32 * p + b) * m + row] >> (c % 32) & 1u;
            w += (set ? 1.0 : -1.0) * value_of(alphas[(g * p + b) * m + row]);
          }
          answer[row] += w * value_of(x[c]);
        }
      }
      CHECK_LE(nmse(result.data(), answer.data(), m), 1e-4);
    }
}
