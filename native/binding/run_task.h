// Runs a row of the table of tasks on operands from JavaScript.
#pragma once

#include <napi.h>

namespace lutra::binding {

// task(id, tensors, parameters, threads, cancel or null): the numbers of lib/native/addon.ts (taskIds).
Napi::Value run_task(const Napi::CallbackInfo& info);

}  // namespace lutra::binding
