// Opens the CUDA backend, an object beside the addon, when it is asked for and never before. That there is none, or
// that it cannot be used, is an answer and no failure: everything else goes on without it.
#pragma once

#include <cstdint>

#include "cuda/abi.h"

namespace lutra {

// The order of `cudaStates` in lib/native/cuda.ts.
enum class DeviceState : uint8_t {
  kReady,
  kNotBuilt,     // no object where it belongs
  kUnusable,     // an object that does not open
  kAbiMismatch,  // an object of another version
  kNoDriver,
  kDriverTooOld,
  kNoDevice,
  kNoArchitecture,  // no code for this device in the object
  kNoMemory,
  kFailed,
};

// What a LutraCudaResult says of a device that was asked for.
DeviceState device_state(int32_t result);

struct DeviceReport {
  DeviceState state = DeviceState::kNotBuilt;
  LutraCudaFacts facts = {};  // zero before the object was opened
  char path[512] = "";        // of the object
  char detail[256] = "";      // the loader's or the driver's own words
};

// Opens the object at `path`, or where that is null lutra_cuda.so beside the file that this code is in, and asks it
// about a device. The table of functions where the state is kReady, otherwise null. The object stays open for the
// process's life.
const LutraCudaTable* device_table(const char* path, int32_t device, DeviceReport* report);

}  // namespace lutra
