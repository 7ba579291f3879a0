// A context of the backend at LUTRA_CUDA_PATH, and memory that goes with it.
#pragma once

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "../harness.h"
#include "device/device.h"

namespace lutra::test {

inline const LutraCudaTable* table() {
  static const LutraCudaTable* const found = [] {
    DeviceReport report;
    return device_table(std::getenv("LUTRA_CUDA_PATH"), 0, &report);
  }();
  return found;
}

inline bool no_device() {
  if (table()) return false;
  skip("no device");
  return true;
}

// The host's runtime plans an error of its next launch (cuda_runtime_api.h there). Null on a real device, which a
// failure would spoil for the whole process.
inline void (*fail_next_launch())(int) {
  static void* const object = dlopen(std::getenv("LUTRA_CUDA_PATH"), RTLD_NOW | RTLD_NOLOAD);
  const auto found = object ? reinterpret_cast<void (*)(int)>(dlsym(object, "lutra_host_runtime_fail")) : nullptr;
  if (!found) skip("a real device");
  return found;
}
constexpr int kLaunchFailure = 719;
constexpr int kTooManyResources = 701;

class Device {
 public:
  Device() { CHECK(table()->create_context(0, &context_) == LUTRA_CUDA_OK); }
  ~Device() { table()->destroy_context(context_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  LutraCudaContext* context() { return context_; }
  void expect(int32_t result) {
    if (result != LUTRA_CUDA_OK) fail(__FILE__, __LINE__, table()->last_error(context_));
  }
  void* memory(size_t bytes) {
    void* data = nullptr;
    expect(table()->allocate(context_, bytes, &data));
    return data;
  }
  void* uploaded(const void* from, size_t bytes) {
    if (!from || bytes == 0) return nullptr;
    void* const to = memory(bytes);
    expect(table()->upload(context_, nullptr, to, from, bytes));
    return to;
  }
  template <typename T>
  T* uploaded(const std::vector<T>& values) {
    return static_cast<T*>(uploaded(values.data(), values.size() * sizeof(T)));
  }
  template <typename T>
  std::vector<T> downloaded(const T* from, size_t count) {
    std::vector<T> values(count);
    expect(table()->download(context_, nullptr, values.data(), from, count * sizeof(T)));
    expect(table()->synchronize(context_, nullptr));
    return values;
  }
  // Zeroed, as the operator wants it before its first use.
  template <typename Op>
  void* workspace(int32_t number, const Op& op) {
    uint64_t bytes = 0;
    expect(table()->workspace(context_, number, &op, &bytes));
    void* const data = memory(bytes);
    expect(table()->clear(context_, nullptr, data, bytes));
    return data;
  }
  template <typename Op>
  int32_t launched(int32_t number, const Op& op) {
    return table()->launch(context_, nullptr, number, &op);
  }
  template <typename Op>
  void launch(int32_t number, const Op& op) {
    expect(launched(number, op));
  }

 private:
  LutraCudaContext* context_ = nullptr;
};

}  // namespace lutra::test
