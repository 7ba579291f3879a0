// The uniform grid every solver rounds to: w ~ scale * (code - zero), code in [0, 2^bits - 1].
#pragma once

#include <cstdint>

namespace lutra {

// The nearest code, halves up, clamped. A zero scale gives the zero's own code. NaN gives 0.
static inline double grid_code(double w, double scale, double zero, double largest) {
  const double code = (scale != 0 ? w / scale : 0.0) + zero + 0.5;
  const double clamped = code >= largest ? largest : code > 0 ? code : 0.0;
  // Truncation is the floor of what is not negative, and inlines where std::floor is a call.
  return static_cast<double>(static_cast<int>(clamped));
}

static inline double grid_value(double code, double scale, double zero) { return scale * (code - zero); }

static inline double largest_code(int bits) { return static_cast<double>((1 << bits) - 1); }

constexpr int kMaxBits = 8;

}  // namespace lutra
