// Size arithmetic that cannot wrap. Every byte count that depends on input goes through here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace lutra {

// Returns false on overflow and leaves *out unspecified.
[[nodiscard]] inline bool checked_mul(int64_t a, int64_t b, int64_t* out) { return !__builtin_mul_overflow(a, b, out); }

// Ceiling division, which no a and b overflow, and rounding, for non-negative a and positive b.
constexpr int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A number as a smaller integer or an enumeration. What the type does not hold becomes its largest number, which the
// checks behind refuse; a plain conversion would wrap to a number that looks right.
template <typename T>
constexpr T narrowed(int64_t value) {
  if constexpr (std::is_enum_v<T>) {
    return static_cast<T>(narrowed<std::underlying_type_t<T>>(value));
  } else {
    constexpr T largest = std::numeric_limits<T>::max();
    return value < std::numeric_limits<T>::min() || value > largest ? largest : static_cast<T>(value);
  }
}

}  // namespace lutra
