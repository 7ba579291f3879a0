// The one way native code reports failure. Plain data: no allocation, no exception.
#pragma once

#include <cstdint>

namespace lutra {

enum class Code : uint8_t {
  kOk,
  kShape,                // dimensions of operands do not fit together
  kDtype,                // an operand has an element type this operation does not take
  kOption,               // a parameter is outside its range
  kNonFinite,            // NaN or infinity where a number is required
  kNotPositiveDefinite,  // a Cholesky pivot was not positive
  kOutOfMemory,
  kCancelled,
  kTruncated,  // a file ended before the requested bytes
  kIo,         // the operating system refused; `found` is errno
  kUnsupported,
  kDevice,  // a device failed, or does not do what was asked of it
};

// `what` is a string literal that says what is wrong and names the operand.
// `found` and `expected` carry the two numbers that disagree, where there are two.
struct [[nodiscard]] Status {
  Code code = Code::kOk;
  const char* what = "";
  int64_t found = 0;
  int64_t expected = 0;

  bool ok() const { return code == Code::kOk; }
};

inline Status ok_status() { return {}; }

inline Status error(Code code, const char* what, int64_t found = 0, int64_t expected = 0) {
  return {code, what, found, expected};
}

}  // namespace lutra

// Returns early from a function that itself returns Status.
#define LUTRA_TRY(expression)                           \
  do {                                                  \
    const ::lutra::Status lutra_status_ = (expression); \
    if (!lutra_status_.ok()) return lutra_status_;      \
  } while (0)
