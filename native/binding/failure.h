// Failures as JavaScript errors: an Error with `code`, `where`, `found` and `expected`, which lib/native turns into a
// LutraError.
#pragma once

#include <napi.h>

#include "core/status.h"

namespace lutra::binding {

Napi::Error failure(Napi::Env env, const Status& status, const char* where);

// A TypeError-like failure of an argument, raised by the binding itself.
Napi::Error bad_argument(Napi::Env env, const char* code, const char* what, const char* where);

inline void throw_unless_ok(Napi::Env env, const Status& status, const char* where) {
  if (!status.ok()) throw failure(env, status, where);
}

}  // namespace lutra::binding
