// What the codes of every group stand for: levels f32 [m, groups, 2^bits] in the order of codes, rounded to f32 as
// `dequantize` rounds. One table serves every kind of weights, uniform or of binary planes: what rounds to it, feeds
// errors back through it or measures against it knows no kind.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

enum class LevelKind : uint8_t {
  kZeroCode,    // scales and zeros f32 [m, groups]: scale * (code - zero)
  kRealOffset,  // scales and offsets f32 [m, groups]: scale * code + offset
  kPlanes,      // alphas f32 [m, groups, bits], offsets f32 [m, groups]: sum of the alphas of the code's bits + offset
  kCentredPlanes,  // alphas alone: the offset is minus half their sum
};

// `offsets` is not read for kCentredPlanes.
Status levels_of(Context& context, LevelKind kind, const TensorView& scales, const TensorView& offsets,
                 const TensorView& levels);

// The same weights as planes: alpha_b = scale * 2^b, offset = -scale * zero, both exact in f32 for scales of 21 bits or
// fewer and zeros that are codes. scales and zeros f32 [m, groups], alphas f32 [m, groups, bits], offsets as zeros.
Status grid_planes(Context& context, const TensorView& scales, const TensorView& zeros, const TensorView& alphas,
                   const TensorView& offsets);

// codes u8 [m,k]: the nearest level of every weight of w f32 [m,k]; halfway between two, the higher one.
// Groups are group_size consecutive columns, the last one ragged.
Status round_to_levels(Context& context, int64_t group_size, const TensorView& w, const TensorView& levels,
                       const TensorView& codes);

// difference f32 [m,k] = w - level of the code. difference may be w.
Status residual(Context& context, const TensorView& w, const TensorView& codes, const TensorView& levels,
                int64_t group_size, const TensorView& difference);

// The level of every code of one group of planes, summed as `dequantize` sums: ascending planes, then the offset; null
// for centred planes.
void plane_levels(const float* alphas, int bits, const float* offset, float* levels);

// levels f32 [m, groups, 2^bits] for an m x k matrix, bits 1 to kMaxBits.
Status check_levels(const TensorView& levels, int64_t rows, int64_t groups);

// The levels of one group in ascending order and the code of each; of equal ones the lower code first.
static inline void sort_levels(const float* levels, int64_t count, float* sorted, uint8_t* codes) {
  for (int64_t code = 0; code < count; ++code) {
    int64_t at = code;
    for (; at > 0 && sorted[at - 1] > levels[code]; --at) {
      sorted[at] = sorted[at - 1];
      codes[at] = codes[at - 1];
    }
    sorted[at] = levels[code];
    codes[at] = static_cast<uint8_t>(code);
  }
}

// Where in `count` ascending levels, a power of two, the nearest to w is; halfway, the higher one. NaN gives 0.
static inline int64_t nearest_level(const float* sorted, int64_t count, double w) {
  int64_t at = 0;
  for (int64_t half = count / 2; half > 0; half /= 2) {
    const double below = sorted[at + half - 1];
    const double above = sorted[at + half];
    at += w >= (below + above) / 2 ? half : 0;
  }
  return at;
}

}  // namespace lutra
