// Size arithmetic that cannot wrap. Every byte count that depends on input goes through here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lutra {

// Both return false on overflow and leave *out unspecified.
[[nodiscard]] inline bool checked_mul(int64_t a, int64_t b, int64_t* out) { return !__builtin_mul_overflow(a, b, out); }
[[nodiscard]] inline bool checked_add(int64_t a, int64_t b, int64_t* out) { return !__builtin_add_overflow(a, b, out); }

// Ceiling division and rounding for non-negative a and positive b.
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace lutra
