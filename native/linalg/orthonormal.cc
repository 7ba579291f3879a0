#include "linalg/orthonormal.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kDotsAPart = 16;
constexpr int64_t kColumnsAPart = 2048;
// What is left of a row that its predecessors span: rounding.
constexpr double kSpanned = 1e-12;
// Random rows that are tried in place of a spanned one. The first is as good as certain.
constexpr int kReplacements = 4;

// x_j -= sum over i < j of <x_i, x_j> x_i.
Status project_out(Context& context, const Matrix64& x, int64_t j, double* coefficients) {
  double* row = x.data + j * x.stride;
  LUTRA_TRY(finished(context.parallel(ceil_div(j, kDotsAPart), [&](int64_t part) {
    const int64_t end = std::min(j, (part + 1) * kDotsAPart);
    for (int64_t i = part * kDotsAPart; i < end; ++i) coefficients[i] = dot_product(x.data + i * x.stride, row, x.cols);
  })));
  return finished(context.parallel(ceil_div(x.cols, kColumnsAPart), [&](int64_t part) {
    const int64_t begin = part * kColumnsAPart;
    const int64_t end = std::min(x.cols, begin + kColumnsAPart);
    for (int64_t i = 0; i < j; ++i) {
      const double* basis = x.data + i * x.stride;
      for (int64_t c = begin; c < end; ++c) row[c] -= coefficients[i] * basis[c];
    }
  }));
}

// The seed is the row's place: the same rows in every run.
void fill_random(double* row, int64_t n, int64_t j, int attempt) {
  std::mt19937_64 random(static_cast<uint64_t>(j * kReplacements + attempt));
  for (int64_t i = 0; i < n; ++i) row[i] = static_cast<double>(random() >> 11) * 0x1p-52 - 1.0;
}

}  // namespace

template <typename T>
double dot_product(const T* a, const T* b, int64_t n) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int64_t s = 0; s < kSums; ++s) sums[s] += static_cast<double>(a[i + s]) * static_cast<double>(b[i + s]);
  for (int64_t s = 0; i < n; ++i, ++s) sums[s] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

template double dot_product(const float* a, const float* b, int64_t n);
template double dot_product(const double* a, const double* b, int64_t n);

Status orthonormalize_rows(Context& context, const Matrix64& x) {
  if (x.rows > x.cols) return error(Code::kShape, "orthonormal: more rows than columns", x.rows, x.cols);
  const AlignedBuffer coefficients(static_cast<size_t>(std::max<int64_t>(x.rows, 1)) * sizeof(double));
  if (!coefficients) return out_of_memory(x.rows * static_cast<int64_t>(sizeof(double)));
  for (int64_t j = 0; j < x.rows; ++j) {
    double* row = x.data + j * x.stride;
    for (int attempt = 0; attempt <= kReplacements; ++attempt) {
      const double before = std::sqrt(dot_product(row, row, x.cols));
      for (int pass = 0; pass < 2; ++pass) LUTRA_TRY(project_out(context, x, j, coefficients.as<double>()));
      const double after = std::sqrt(dot_product(row, row, x.cols));
      // False for a NaN too.
      if (after > kSpanned * before && std::isfinite(after)) {
        for (int64_t c = 0; c < x.cols; ++c) row[c] /= after;
        break;
      }
      if (attempt == kReplacements) return error(Code::kNonFinite, "orthonormal: no basis goes on from this row", j);
      fill_random(row, x.cols, j, attempt);
    }
  }
  return ok_status();
}

}  // namespace lutra
