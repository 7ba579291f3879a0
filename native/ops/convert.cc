#include "kernels/convert/convert.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "core/half.h"
#include "ops/operand.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

constexpr int64_t kPartElements = int64_t{1} << 16;
constexpr int64_t kPiece = 512;  // elements that pass through an f32 buffer at a time

constexpr bool is_number(Dtype dtype) { return is_float(dtype) || dtype == Dtype::kF64; }

// f64 to f32 rounding to odd: an inexact result gets an odd last bit, so that a second rounding to 16 bits gives what
// one rounding would have given.
float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (back == value || value != value || (bits & 1u)) return nearest;
  // The other neighbour of `value` is odd: one step towards zero, or away from it.
  const bool beyond = (back < 0 ? -back : back) > (value < 0 ? -value : value);
  bits += beyond ? ~uint32_t{0} : 1u;
  return std::bit_cast<float>(bits);
}

void to_f32(const ConvertKernels& kernels, const TensorView& x, int64_t first, int64_t count, bool odd, float* y) {
  switch (x.dtype) {
    case Dtype::kF16:
      return kernels.f16_to_f32(x.as<uint16_t>() + first, y, count);
    case Dtype::kBF16:
      return kernels.bf16_to_f32(x.as<uint16_t>() + first, y, count);
    case Dtype::kF64: {
      const double* from = x.as<double>() + first;
      for (int64_t i = 0; i < count; ++i) y[i] = odd ? round_to_odd(from[i]) : static_cast<float>(from[i]);
      return;
    }
    default:
      std::memcpy(y, x.as<float>() + first, static_cast<size_t>(count) * sizeof(float));
  }
}

void from_f32(const ConvertKernels& kernels, const float* x, const TensorView& y, int64_t first, int64_t count) {
  switch (y.dtype) {
    case Dtype::kF16:
      return kernels.f32_to_f16(x, y.as<uint16_t>() + first, count);
    case Dtype::kBF16:
      return kernels.f32_to_bf16(x, y.as<uint16_t>() + first, count);
    case Dtype::kF64: {
      double* to = y.as<double>() + first;
      for (int64_t i = 0; i < count; ++i) to[i] = x[i];
      return;
    }
    default:
      std::memcpy(y.as<float>() + first, x, static_cast<size_t>(count) * sizeof(float));
  }
}

// The first element of [begin, end) whose exponent bits are all ones (infinite or NaN), or end. Blocks are looked
// through without a branch an element, so that the compiler uses vectors and the scan runs at memory speed.
template <typename Bits>
int64_t first_non_finite(const Bits* data, int64_t begin, int64_t end, Bits exponent) {
  constexpr int64_t kBlock = 512;
  for (; begin < end; begin += kBlock) {
    const int64_t stop = std::min(end, begin + kBlock);
    Bits found = 0;
    for (int64_t i = begin; i < stop; ++i) found |= static_cast<Bits>((data[i] & exponent) == exponent);
    if (!found) continue;
    while ((data[begin] & exponent) != exponent) ++begin;
    return begin;
  }
  return end;
}

int64_t first_non_finite(const TensorView& x, int64_t begin, int64_t end) {
  switch (x.dtype) {
    case Dtype::kF16:
      return first_non_finite<uint16_t>(x.as<uint16_t>(), begin, end, 0x7c00u);
    case Dtype::kBF16:
      return first_non_finite<uint16_t>(x.as<uint16_t>(), begin, end, 0x7f80u);
    case Dtype::kF64:
      return first_non_finite<uint64_t>(x.as<uint64_t>(), begin, end, 0x7ff0000000000000u);
    default:
      return first_non_finite<uint32_t>(x.as<uint32_t>(), begin, end, 0x7f800000u);
  }
}

}  // namespace

Status convert(Context& context, const TensorView& x, const TensorView& y) {
  LUTRA_TRY(require_rank(x, x.rank, "convert: x has a bad dimension"));
  LUTRA_TRY(require_rank(y, x.rank, "convert: rank of y, against rank of x"));
  if (!is_number(x.dtype))
    return error(Code::kDtype, "convert: x must be f32, f16, bf16 or f64", static_cast<int64_t>(x.dtype));
  if (!is_number(y.dtype))
    return error(Code::kDtype, "convert: y must be f32, f16, bf16 or f64", static_cast<int64_t>(y.dtype));
  LUTRA_TRY(require_same_shape(x, y, "convert: shape of y, against shape of x"));
  LUTRA_TRY(require_apart(y, x, "convert: y may not overlap x"));
  const ConvertKernels& kernels = convert_kernels();
  const int64_t elements = x.elements();
  const bool odd = dtype_bytes(y.dtype) == 2;
  return finished(context.parallel(ceil_div(elements, kPartElements), [&](int64_t part) {
    const int64_t first = part * kPartElements;
    const int64_t end = std::min(elements, first + kPartElements);
    if (x.dtype == y.dtype) {
      const size_t size = dtype_bytes(x.dtype);
      std::memcpy(y.as<uint8_t>() + static_cast<size_t>(first) * size,
                  x.as<uint8_t>() + static_cast<size_t>(first) * size, static_cast<size_t>(end - first) * size);
      return;
    }
    float piece[kPiece];
    for (int64_t i = first; i < end; i += kPiece) {
      const int64_t count = std::min(kPiece, end - i);
      to_f32(kernels, x, i, count, odd, piece);
      from_f32(kernels, piece, y, i, count);
    }
  }));
}

Status find_non_finite(Context& context, const TensorView& x, int64_t* index) {
  LUTRA_TRY(require_rank(x, x.rank, "find_non_finite: x has a bad dimension"));
  if (!is_number(x.dtype))
    return error(Code::kDtype, "find_non_finite: x must be f32, f16, bf16 or f64", static_cast<int64_t>(x.dtype));
  const int64_t elements = x.elements();
  std::atomic<int64_t> first_bad{elements};
  const bool ran = context.parallel(ceil_div(elements, kPartElements), [&](int64_t part) {
    const int64_t end = std::min(elements, (part + 1) * kPartElements);
    const int64_t begin = part * kPartElements;
    if (begin >= first_bad.load(std::memory_order_relaxed)) return;
    const int64_t i = first_non_finite(x, begin, end);
    int64_t known = first_bad.load();
    while (i < end && i < known && !first_bad.compare_exchange_weak(known, i)) {
    }
  });
  LUTRA_TRY(finished(ran));
  *index = first_bad.load() < elements ? first_bad.load() : -1;
  return ok_status();
}

}  // namespace lutra
