#include "device/device.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace lutra {

namespace {

// This very file's address leads to the file on disk that holds it: the addon, or an executable.
void find_object(const char* wanted, char* path, size_t size) {
  path[0] = '\0';
  if (wanted) {
    std::snprintf(path, size, "%s", wanted);
    return;
  }
  Dl_info info = {};
  if (!dladdr(reinterpret_cast<const void*>(&device_table), &info) || !info.dli_fname) return;
  const char* const slash = std::strrchr(info.dli_fname, '/');
  const int folder = slash ? static_cast<int>(slash - info.dli_fname) + 1 : 0;
  std::snprintf(path, size, "%.*slutra_cuda.so", folder, info.dli_fname);
}

}  // namespace

DeviceState device_state(int32_t result) {
  switch (result) {
    case LUTRA_CUDA_OK:
      return DeviceState::kReady;
    case LUTRA_CUDA_NO_DRIVER:
      return DeviceState::kNoDriver;
    case LUTRA_CUDA_DRIVER_TOO_OLD:
      return DeviceState::kDriverTooOld;
    case LUTRA_CUDA_NO_DEVICE:
      return DeviceState::kNoDevice;
    case LUTRA_CUDA_NO_ARCHITECTURE:
      return DeviceState::kNoArchitecture;
    case LUTRA_CUDA_NO_MEMORY:
      return DeviceState::kNoMemory;
    default:
      return DeviceState::kFailed;
  }
}

const LutraCudaTable* device_table(const char* path, int32_t device, DeviceReport* report) {
  *report = {};
  find_object(path, report->path, sizeof report->path);
  if (access(report->path, F_OK) != 0) return nullptr;
  // Opening it again only counts; closing it would take the CUDA runtime's threads away from under it.
  void* const object = dlopen(report->path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  const auto open = object ? reinterpret_cast<LutraCudaOpen>(dlsym(object, LUTRA_CUDA_OPEN_NAME)) : nullptr;
  if (!open) {
    const char* const why = dlerror();
    std::snprintf(report->detail, sizeof report->detail, "%s", why ? why : "it has no lutra_cuda_open");
    report->state = DeviceState::kUnusable;
    return nullptr;
  }
  const LutraCudaTable* const table = open(LUTRA_CUDA_ABI_VERSION);
  if (!table || table->version != LUTRA_CUDA_ABI_VERSION || table->bytes != sizeof(LutraCudaTable)) {
    report->state = DeviceState::kAbiMismatch;
    return nullptr;
  }
  report->facts.bytes = sizeof report->facts;
  table->probe(device, &report->facts);
  report->state = device_state(report->facts.state);
  std::snprintf(report->detail, sizeof report->detail, "%s", report->facts.detail);
  return report->state == DeviceState::kReady ? table : nullptr;
}

}  // namespace lutra
