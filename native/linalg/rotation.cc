#include "linalg/rotation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/checked.h"
#include "core/element.h"
#include "ops/lane_scratch.h"
#include "ops/operand.h"

namespace lutra {

namespace {

constexpr int64_t kBundle = 8;  // vectors that are rotated side by side: a cache line of f64

Status check_matrix(const TensorView& t, const char* rank, const char* dtype) {
  LUTRA_TRY(require_rank(t, 2, rank));
  return is_float(t.dtype) || t.dtype == Dtype::kF64 ? ok_status()
                                                     : error(Code::kDtype, dtype, static_cast<int64_t>(t.dtype));
}

// K on kBundle vectors: values [n][kBundle], spare [odd][kBundle].
struct Kernel {
  int64_t n;
  int64_t odd;
  const double* hartley;  // [odd]: (cos + sin)(2 pi i / odd) / sqrt(n)

  void hadamard(double* values) const {
    const int64_t all = n * kBundle;
    for (int64_t half = odd * kBundle; half < all; half *= 2)
      for (int64_t begin = 0; begin < all; begin += 2 * half)
        for (int64_t i = begin; i < begin + half; ++i) {
          const double a = values[i], b = values[i + half];
          values[i] = a + b;
          values[i + half] = a - b;
        }
  }

  void hartley_factor(double* values, double* spare) const {
    for (int64_t first = 0; first < n; first += odd) {
      double* block = values + first * kBundle;
      for (int64_t i = 0; i < odd; ++i) {
        double sum[kBundle] = {};
        int64_t at = 0;  // i j mod odd
        for (int64_t j = 0; j < odd; ++j) {
          for (int64_t v = 0; v < kBundle; ++v) sum[v] += hartley[at] * block[j * kBundle + v];
          at += i;
          if (at >= odd) at -= odd;
        }
        std::copy_n(sum, kBundle, spare + i * kBundle);
      }
      std::copy_n(spare, odd * kBundle, block);
    }
  }
};

// kBundle vectors of a matrix: element i of vector v lies at `first` + i * element + v * vector.
struct Bundle {
  int64_t first;
  int64_t element;
  int64_t vector;
  int64_t vectors;
};

void gather(const TensorView& x, const Bundle& bundle, const double* signs, int64_t n, double* values) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t v = 0; v < kBundle; ++v)
      values[i * kBundle + v] =
          v < bundle.vectors
              ? signs[i] * element_of(x.data, x.dtype, bundle.first + i * bundle.element + v * bundle.vector)
              : 0.0;
}

void scatter(const double* values, const Bundle& bundle, int64_t n, const TensorView& y) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t v = 0; v < bundle.vectors; ++v)
      store_element(y.data, y.dtype, bundle.first + i * bundle.element + v * bundle.vector, values[i * kBundle + v]);
}

Status check(Axis axis, const TensorView& x, const TensorView& signs, const TensorView& y) {
  LUTRA_TRY(check_matrix(x, "rotate: x must have 2 dimensions", "rotate: x must be f32, f16, bf16 or f64"));
  LUTRA_TRY(check_matrix(y, "rotate: y must have 2 dimensions", "rotate: y must be f32, f16, bf16 or f64"));
  LUTRA_TRY(require_same_shape(x, y, "rotate: shape of y, against shape of x"));
  LUTRA_TRY(require_apart(y, x, "rotate: y must not share memory with x"));
  LUTRA_TRY(require_rank(signs, 1, "rotate: signs must have 1 dimension"));
  LUTRA_TRY(require_dtype(signs, Dtype::kF64, "rotate: signs must be f64"));
  const int64_t n = signs.shape[0], length = x.shape[axis == Axis::kRows ? 0 : 1];
  if (n < 1 || length % n != 0)
    return error(Code::kShape, "rotate: signs, of which the axis must hold a multiple", n, length);
  for (int64_t i = 0; i < n; ++i)
    if (std::fabs(signs.as<double>()[i]) != 1.0) return error(Code::kOption, "rotate: this sign is not +1 or -1", i);
  return ok_status();
}

}  // namespace

Status rotate(Context& context, Axis axis, const TensorView& x, const TensorView& signs, const TensorView& y) {
  LUTRA_TRY(check(axis, x, signs, y));
  if (x.elements() == 0) return ok_status();
  const int64_t m = x.shape[0], k = x.shape[1], n = signs.shape[0];
  const int64_t odd = n >> std::countr_zero(static_cast<uint64_t>(n));
  if (odd > kLargestOddFactor)
    return error(Code::kUnsupported, "rotate: the odd factor of the size", odd, kLargestOddFactor);
  const size_t table = static_cast<size_t>(ceil_div(odd, kBundle) * kBundle) * sizeof(double);
  const size_t slot = static_cast<size_t>((n + odd) * kBundle) * sizeof(double);
  const size_t bytes = table + LaneScratch::bytes(context, slot);
  double* hartley = static_cast<double*>(context.scratch(bytes));
  if (!hartley) return out_of_memory(static_cast<int64_t>(bytes));
  for (int64_t i = 0; i < odd; ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / static_cast<double>(odd);
    hartley[i] = (std::cos(angle) + std::sin(angle)) / std::sqrt(static_cast<double>(n));
  }
  LaneScratch lanes(context, reinterpret_cast<uint8_t*>(hartley) + table, slot);
  const Kernel kernel{n, odd, hartley};
  const bool in_rows = axis == Axis::kColumns;
  const int64_t segments = (in_rows ? k : m) / n;
  const int64_t vectors = in_rows ? m : k;
  return finished(context.parallel(ceil_div(vectors, kBundle) * segments, [&](int64_t part) {
    const int64_t begin = part / segments * kBundle, segment = part % segments;
    const int64_t element = in_rows ? 1 : k, vector = in_rows ? k : 1;
    const Bundle bundle{begin * vector + segment * n * element, element, vector, std::min(kBundle, vectors - begin)};
    const LaneScratch::Slot memory(lanes);
    double* values = memory.as<double>();
    gather(x, bundle, signs.as<double>(), n, values);
    kernel.hadamard(values);
    kernel.hartley_factor(values, values + n * kBundle);
    scatter(values, bundle, n, y);
  }));
}

Status scale_matrix(Context& context, const TensorView& x, const TensorView& rows, const TensorView& columns,
                    const TensorView& y) {
  LUTRA_TRY(check_matrix(x, "scale: x must have 2 dimensions", "scale: x must be f32, f16, bf16 or f64"));
  LUTRA_TRY(check_matrix(y, "scale: y must have 2 dimensions", "scale: y must be f32, f16, bf16 or f64"));
  LUTRA_TRY(require_same_shape(x, y, "scale: shape of y, against shape of x"));
  LUTRA_TRY(require_rank(rows, 1, "scale: rows must have 1 dimension"));
  LUTRA_TRY(require_rank(columns, 1, "scale: columns must have 1 dimension"));
  LUTRA_TRY(require_dtype(rows, Dtype::kF64, "scale: rows must be f64"));
  LUTRA_TRY(require_dtype(columns, Dtype::kF64, "scale: columns must be f64"));
  const int64_t m = x.shape[0], k = x.shape[1];
  LUTRA_TRY(require_equal(rows.shape[0], m, "scale: elements of rows, against rows of x"));
  LUTRA_TRY(require_equal(columns.shape[0], k, "scale: elements of columns, against columns of x"));
  // Two types of different size in the same memory would overwrite what is still to be read.
  if (!(x.data == y.data && x.dtype == y.dtype))
    LUTRA_TRY(require_apart(y, x, "scale: y must be x or share no memory with it"));
  constexpr int64_t kPartElements = int64_t{1} << 16;
  const int64_t rows_a_part = std::max<int64_t>(1, kPartElements / std::max<int64_t>(1, k));
  return finished(context.parallel(ceil_div(m, rows_a_part), [&](int64_t part) {
    const int64_t end = std::min(m, (part + 1) * rows_a_part);
    for (int64_t i = part * rows_a_part; i < end; ++i) {
      const double row = rows.as<double>()[i];
      for (int64_t j = 0; j < k; ++j)
        store_element(y.data, y.dtype, i * k + j,
                      element_of(x.data, x.dtype, i * k + j) * row * columns.as<double>()[j]);
    }
  }));
}

}  // namespace lutra
