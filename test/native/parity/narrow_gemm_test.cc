#include "kernels/narrow_gemm/narrow_gemm.h"

#include "../operands.h"
#include "versions.h"

using namespace lutra;
using namespace lutra::test;

namespace {

const std::vector<int64_t>& depths() {
  static const std::vector<int64_t> all = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,  11,  12,  13, 14,
                                           15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300};
  static const std::vector<int64_t> few = {1, 7, 16, 17, 33, 129};
  return quick() ? few : all;
}

void check_dot(const NarrowGemmKernels& kernels, bool bf16, int64_t tokens, int64_t rows, int64_t k, Distribution d) {
  const HalfDot dot = bf16 ? kernels.dot_bf16 : kernels.dot_f16;
  Guarded<float> x(static_cast<size_t>(tokens * k), static_cast<size_t>(k % 3));
  Guarded<uint16_t> w(static_cast<size_t>(rows * k), static_cast<size_t>(k % 5));
  std::vector<float> wide(w.size());
  fill(x.data(), x.size(), Distribution::kNormal, 1);
  fill(wide.data(), wide.size(), d, 2);
  for (size_t i = 0; i < w.size(); ++i) w[i] = bf16 ? float_to_bfloat16(wide[i]) : float_to_half(wide[i]);
  const size_t outputs = static_cast<size_t>(tokens * rows);
  std::vector<double> expected(outputs), magnitude(outputs);
  narrow_gemm_reference(x.data(), k, w.data(), k, bf16, tokens, rows, k, expected.data());
  std::vector<float> size_of_x(x.size());
  std::vector<uint16_t> size_of_w(w.size());
  for (size_t i = 0; i < x.size(); ++i) size_of_x[i] = std::fabs(x[i]);
  for (size_t i = 0; i < w.size(); ++i) size_of_w[i] = w[i] & 0x7fff;
  narrow_gemm_reference(size_of_x.data(), k, size_of_w.data(), k, bf16, tokens, rows, k, magnitude.data());
  Guarded<float> y(outputs, 1);
  dot(x.data(), k, tokens, w.data(), k, rows, k, y.data(), rows);
  for (size_t i = 0; i < outputs; ++i) CHECK_LE(std::fabs(y[i] - expected[i]), 1e-6 * magnitude[i] + 1e-44);
  float alone = 0;
  dot(x.data() + (tokens - 1) * k, k, 1, w.data() + (rows - 1) * k, k, 1, k, &alone, 1);
  CHECK(alone == y[outputs - 1]);
}

// Codes over all of int8, -128 among them, and scales of every sign and size.
void check_dot_i8(const NarrowGemmKernels& kernels, int64_t tokens, int64_t rows, int64_t k, Distribution d) {
  Guarded<float> x(static_cast<size_t>(tokens * k), static_cast<size_t>(k % 3));
  Guarded<int8_t> w(static_cast<size_t>(rows * k), static_cast<size_t>(k % 5));
  Guarded<float> scales(static_cast<size_t>(rows));
  fill(x.data(), x.size(), d, 1);
  fill(scales.data(), scales.size(), Distribution::kOutlier, 2);
  std::mt19937 random(3);
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i ? random() : 0x80);
  const size_t outputs = static_cast<size_t>(tokens * rows);
  std::vector<double> expected(outputs), magnitude(outputs);
  narrow_gemm_reference_i8(x.data(), k, w.data(), k, scales.data(), tokens, rows, k, expected.data());
  for (size_t i = 0; i < outputs; ++i) {
    const size_t t = i / static_cast<size_t>(rows), r = i % static_cast<size_t>(rows), width = static_cast<size_t>(k);
    for (size_t kk = 0; kk < width; ++kk)
      magnitude[i] += std::fabs(static_cast<double>(scales[r]) * x[t * width + kk] * w[r * width + kk]);
  }
  Guarded<float> y(outputs, 1);
  kernels.dot_i8(x.data(), k, tokens, w.data(), k, scales.data(), rows, k, y.data(), rows);
  for (size_t i = 0; i < outputs; ++i) CHECK_LE(std::fabs(y[i] - expected[i]), 1e-6 * magnitude[i] + 1e-44);
  float alone = 0;
  kernels.dot_i8(x.data() + (tokens - 1) * k, k, 1, w.data() + (rows - 1) * k, k, scales.data() + rows - 1, 1, k,
                 &alone, 1);
  CHECK(alone == y[outputs - 1]);
}

void check_widen_i8(const NarrowGemmKernels& kernels, int64_t count) {
  Guarded<int8_t> w(static_cast<size_t>(count), static_cast<size_t>(count % 5));
  Guarded<float> y(w.size(), static_cast<size_t>(count % 3));
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i * 37 + 0x80);
  kernels.widen_i8(w.data(), -0.3f, y.data(), count);
  for (size_t i = 0; i < w.size(); ++i) CHECK(y[i] == -0.3f * static_cast<float>(w[i]));
}

void check_parity(const NarrowGemmKernels& kernels) {
  for (const Distribution d :
       {Distribution::kNormal, Distribution::kConstant, Distribution::kZero, Distribution::kDenormal})
    for (const bool bf16 : {false, true})
      for (const int64_t k : depths())
        for (int64_t tokens = 1; tokens <= kernels.dot_tokens; ++tokens)
          for (int64_t rows = 1; rows <= kernels.dot_rows; ++rows) check_dot(kernels, bf16, tokens, rows, k, d);
  for (const int64_t k : depths()) {
    check_widen_i8(kernels, k);
    for (const Distribution d : {Distribution::kNormal, Distribution::kOutlier, Distribution::kZero})
      for (int64_t tokens = 1; tokens <= kernels.dot_tokens; ++tokens)
        for (int64_t rows = 1; rows <= kernels.dot_rows; ++rows) check_dot_i8(kernels, tokens, rows, k, d);
  }
}

void dot_with_swapped_rows(const float* x, int64_t x_stride, int64_t tokens, const uint16_t* w, int64_t w_stride,
                           int64_t rows, int64_t k, float* y, int64_t y_stride) {
  narrow_gemm_scalar.dot_f16(x, x_stride, tokens, w, w_stride, rows, k, y, y_stride);
  if (rows > 2) std::swap(y[1], y[2]);
}
void dot_i8_with_one_scale(const float* x, int64_t x_stride, int64_t tokens, const int8_t* w, int64_t w_stride,
                           const float* scales, int64_t rows, int64_t k, float* y, int64_t y_stride) {
  const float same[] = {scales[0], scales[0], scales[0], scales[0]};
  narrow_gemm_scalar.dot_i8(x, x_stride, tokens, w, w_stride, same, rows, k, y, y_stride);
}
void widen_unsigned(const int8_t* w, float scale, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = scale * static_cast<float>(static_cast<uint8_t>(w[i]));
}

}  // namespace

LUTRA_TEST(narrow_gemm, every_version_agrees_with_the_reference) {
  for (const NarrowGemmKernels* kernels : versions<NarrowGemmKernels>(narrow_gemm_kernels)) check_parity(*kernels);
}

LUTRA_TEST(narrow_gemm, the_check_sees_planted_faults) {
  NarrowGemmKernels mutant = narrow_gemm_scalar;
  mutant.dot_f16 = dot_with_swapped_rows;
  CHECK(catches([&] { check_parity(mutant); }));
  mutant = narrow_gemm_scalar;
  mutant.dot_i8 = dot_i8_with_one_scale;
  CHECK(catches([&] { check_parity(mutant); }));
  mutant = narrow_gemm_scalar;
  mutant.widen_i8 = widen_unsigned;
  CHECK(catches([&] { check_parity(mutant); }));
}
