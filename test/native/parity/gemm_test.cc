#include "kernels/gemm/gemm.h"

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

const std::vector<int64_t>& depths() {
  static const std::vector<int64_t> all = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,  11,  12,  13,  14,
                                           15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257};
  static const std::vector<int64_t> few = {1, 7, 16, 17, 33, 129};
  return quick() ? few : all;
}

// |y - expected| against the sum of the magnitudes that were added: cancellation is no fault of a kernel.
void check_close(const Guarded<float>& y, const std::vector<double>& expected, const std::vector<double>& magnitude,
                 double factor) {
  for (size_t i = 0; i < y.size(); ++i)
    CHECK_LE(std::fabs(static_cast<double>(y[i]) - factor * expected[i]), 1e-6 * factor * magnitude[i]);
}

std::vector<double> magnitudes(const Guarded<float>& a, const Guarded<float>& b, int64_t n, int64_t m, int64_t k) {
  std::vector<float> left(a.size()), right(b.size());
  for (size_t i = 0; i < left.size(); ++i) left[i] = std::fabs(a[i]);
  for (size_t i = 0; i < right.size(); ++i) right[i] = std::fabs(b[i]);
  std::vector<double> sums(static_cast<size_t>(n * m));
  gemm_reference(left.data(), k, right.data(), k, n, m, k, sums.data());
  return sums;
}

// One tile through both ways of packing: [rows, k] and [k, rows] operands.
void check_tile(const GemmKernels& kernels, int64_t rows, int64_t cols, int64_t k, Distribution d, size_t slack) {
  Guarded<float> a(static_cast<size_t>(rows * k), slack);
  Guarded<float> b(static_cast<size_t>(cols * k), slack);
  Guarded<float> b_columns(static_cast<size_t>(cols * k), slack);
  fill(a.data(), a.size(), d, 1);
  fill(b.data(), b.size(), Distribution::kNormal, 2);
  for (int64_t j = 0; j < cols; ++j)
    for (int64_t kk = 0; kk < k; ++kk)
      b_columns[static_cast<size_t>(kk * cols + j)] = b[static_cast<size_t>(j * k + kk)];
  Guarded<float> panel_a(static_cast<size_t>(kernels.tile_rows * k));
  Guarded<float> panel_b(static_cast<size_t>(kernels.tile_cols * k));
  Guarded<float> panel_columns(static_cast<size_t>(kernels.tile_cols * k));
  kernels.pack_rows(a.data(), k, rows, k, kernels.tile_rows, panel_a.data());
  kernels.pack_rows(b.data(), k, cols, k, kernels.tile_cols, panel_b.data());
  kernels.pack_columns(b_columns.data(), cols, cols, k, kernels.tile_cols, panel_columns.data());
  CHECK(!std::memcmp(panel_b.data(), panel_columns.data(), panel_b.size() * sizeof(float)));
  std::vector<double> expected(static_cast<size_t>(rows * cols));
  gemm_reference(a.data(), k, b.data(), k, rows, cols, k, expected.data());
  Guarded<float> c(static_cast<size_t>(rows * cols), slack);
  kernels.tile(panel_a.data(), kernels.tile_rows, panel_b.data(), kernels.tile_cols, k, c.data(), cols, rows, cols,
               false);
  const std::vector<double> magnitude = magnitudes(a, b, rows, cols, k);
  check_close(c, expected, magnitude, 1);
  kernels.tile(panel_a.data(), kernels.tile_rows, panel_b.data(), kernels.tile_cols, k, c.data(), cols, rows, cols,
               true);
  check_close(c, expected, magnitude, 2);
  // Into fp64: the whole tile, whose rows and columns past the end are zero.
  const size_t width = static_cast<size_t>(kernels.tile_cols);
  Guarded<double> wide(static_cast<size_t>(kernels.tile_rows) * width);
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = 5.0;
  kernels.tile_to64(panel_a.data(), panel_b.data(), k, wide.data());
  for (size_t i = 0; i < wide.size(); ++i) {
    const size_t row = i / width, column = i % width;
    if (row >= static_cast<size_t>(rows) || column >= static_cast<size_t>(cols)) {
      CHECK(wide[i] == 5.0);
      continue;
    }
    const size_t at = row * static_cast<size_t>(cols) + column;
    CHECK_LE(std::fabs(wide[i] - 5.0 - expected[at]), 1e-6 * magnitude[at] + 1e-12);
    CHECK_LE(std::fabs(static_cast<float>(wide[i] - 5.0) - c[at] * 0.5f), 1e-6 * magnitude[at] + 1e-12);
  }
}

void check_tile64(const GemmKernels& kernels, int64_t rows, int64_t cols, int64_t k) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  std::vector<double> a(static_cast<size_t>(rows * k)), b(static_cast<size_t>(cols * k));
  for (double& v : a) v = normal(random);
  for (double& v : b) v = normal(random);
  Guarded<double> panel_a(static_cast<size_t>(kernels.tile_rows64 * k));
  Guarded<double> panel_b(static_cast<size_t>(kernels.tile_cols64 * k));
  const auto pack = [k](const std::vector<double>& from, int64_t live, int64_t tile, Guarded<double>& panel) {
    for (int64_t kk = 0; kk < k; ++kk)
      for (int64_t r = 0; r < tile; ++r)
        panel[static_cast<size_t>(kk * tile + r)] = r < live ? from[static_cast<size_t>(r * k + kk)] : 0.0;
  };
  pack(a, rows, kernels.tile_rows64, panel_a);
  pack(b, cols, kernels.tile_cols64, panel_b);
  std::vector<double> expected(static_cast<size_t>(rows * cols));
  gemm_reference64(a.data(), k, b.data(), k, rows, cols, k, expected.data());
  Guarded<double> c(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < c.size(); ++i) c[i] = 3.0;
  kernels.tile64(panel_a.data(), panel_b.data(), k, c.data(), cols, rows, cols);
  for (size_t i = 0; i < c.size(); ++i)
    CHECK_LE(std::fabs(c[i] - (3.0 - expected[i])), 1e-12 * static_cast<double>(k + 8));
}

void check_dot(const GemmKernels& kernels, int64_t tokens, int64_t rows, int64_t k, Distribution d, size_t slack) {
  Guarded<float> x(static_cast<size_t>(tokens * k), slack);
  Guarded<float> w(static_cast<size_t>(rows * k), slack);
  fill(x.data(), x.size(), d, 3);
  fill(w.data(), w.size(), Distribution::kNormal, 4);
  std::vector<double> expected(static_cast<size_t>(tokens * rows));
  gemm_reference(x.data(), k, w.data(), k, tokens, rows, k, expected.data());
  Guarded<float> y(static_cast<size_t>(tokens * rows), slack);
  kernels.dot(x.data(), k, tokens, w.data(), k, rows, k, y.data(), rows);
  check_close(y, expected, magnitudes(x, w, tokens, rows, k), 1);
  // Alone or in company, an element has the same bits.
  float alone = 0;
  kernels.dot(x.data() + (tokens - 1) * k, k, 1, w.data() + (rows - 1) * k, k, 1, k, &alone, 1);
  CHECK(alone == y[y.size() - 1]);
}

void check_parity(const GemmKernels& kernels) {
  for (const Distribution d :
       {Distribution::kNormal, Distribution::kOutlier, Distribution::kConstant, Distribution::kZero})
    for (const int64_t k : depths()) {
      const size_t slack = static_cast<size_t>(k % 3);
      for (int64_t rows = 1; rows <= kernels.tile_rows; rows += quick() ? 5 : 1)
        check_tile(kernels, rows, 1 + (rows * 7 + k) % kernels.tile_cols, k, d, slack);
      check_tile(kernels, kernels.tile_rows, kernels.tile_cols, k, d, slack);
      for (int64_t tokens = 1; tokens <= kernels.dot_tokens; ++tokens)
        for (int64_t rows = 1; rows <= kernels.dot_rows; ++rows) check_dot(kernels, tokens, rows, k, d, slack);
    }
  for (const int64_t k : depths())
    for (int64_t rows = 1; rows <= kernels.tile_rows64; ++rows)
      for (int64_t cols = 1 + k % 3; cols <= kernels.tile_cols64; cols += 5) check_tile64(kernels, rows, cols, k);
}

// Planted faults.
void dot_without_tail(const float* x, int64_t x_stride, int64_t tokens, const float* w, int64_t w_stride, int64_t rows,
                      int64_t k, float* y, int64_t y_stride) {
  gemm_scalar.dot(x, x_stride, tokens, w, w_stride, rows, k > 8 ? k / 8 * 8 : k, y, y_stride);
}
void tile_without_last_column(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, float* c,
                              int64_t c_stride, int64_t rows, int64_t cols, bool add) {
  gemm_scalar.tile(a, a_stride, b, b_stride, k, c, c_stride, rows, cols > 1 ? cols - 1 : cols, add);
}
void tile_to64_that_forgets(const float* a, const float* b, int64_t k, double* c) {
  for (int64_t i = 0; i < gemm_scalar.tile_rows * gemm_scalar.tile_cols; ++i) c[i] = 0;
  gemm_scalar.tile_to64(a, b, k, c);
}

}  // namespace

LUTRA_TEST(gemm, every_version_agrees_with_the_reference) {
  for (const GemmKernels* kernels : versions<GemmKernels>(gemm_kernels)) check_parity(*kernels);
}

LUTRA_TEST(gemm, the_check_sees_planted_faults) {
  GemmKernels mutant = gemm_scalar;
  mutant.dot = dot_without_tail;
  CHECK(catches([&] { check_parity(mutant); }));
  mutant = gemm_scalar;
  mutant.tile = tile_without_last_column;
  CHECK(catches([&] { check_parity(mutant); }));
  mutant = gemm_scalar;
  mutant.tile_to64 = tile_to64_that_forgets;
  CHECK(catches([&] { check_parity(mutant); }));
}
