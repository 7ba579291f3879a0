#include "binding/failure.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "device/device.h"

namespace lutra::binding {

namespace {

const char* code_name(const Status& status) {
  switch (status.code) {
    case Code::kShape:
      return "LUTRA_E_SHAPE";
    case Code::kDtype:
      return "LUTRA_E_DTYPE";
    case Code::kOption:
      return "LUTRA_E_OPTION";
    case Code::kNonFinite:
      return "LUTRA_E_NON_FINITE";
    case Code::kNotPositiveDefinite:
      return "LUTRA_E_NOT_POSITIVE_DEFINITE";
    case Code::kOutOfMemory:
      return "LUTRA_E_MEMORY";
    case Code::kTruncated:
      return "LUTRA_E_TRUNCATED";
    case Code::kIo:
      return status.found == ENOSPC || status.found == EDQUOT ? "LUTRA_E_DISK_FULL" : "LUTRA_E_IO";
    case Code::kUnsupported:
      return "LUTRA_E_BITS";
    case Code::kDevice:
      return status.found == LUTRA_CUDA_NO_MEMORY ? "LUTRA_E_CUDA_MEMORY" : "LUTRA_E_DEVICE";
    case Code::kOk:
    case Code::kCancelled:
      break;
  }
  return "LUTRA_E_INTERNAL";
}

}  // namespace

Napi::Error failure(Napi::Env env, const Status& status, const char* where) {
  std::string text = status.what;
  const bool system = status.code == Code::kIo;
  if (system) text += std::string(": ") + std::strerror(static_cast<int>(status.found));
  Napi::Error error = Napi::Error::New(env, text);
  error.Set("code", Napi::String::New(env, code_name(status)));
  error.Set("where", Napi::String::New(env, where));
  const bool numbers = !system && status.code != Code::kDevice;
  if (numbers && (status.found != 0 || status.expected != 0)) {
    error.Set("found", Napi::Number::New(env, static_cast<double>(status.found)));
    if (status.expected != 0) error.Set("expected", Napi::Number::New(env, static_cast<double>(status.expected)));
  }
  return error;
}

Napi::Error bad_argument(Napi::Env env, const char* code, const char* what, const char* where) {
  Napi::Error error = Napi::Error::New(env, what);
  error.Set("code", Napi::String::New(env, code));
  error.Set("where", Napi::String::New(env, where));
  return error;
}

}  // namespace lutra::binding
