// A device's context and the memory in it, as objects that give themselves back.
//
// A context is the process's only one on its device while anybody holds it. One that failed is of no use any more, nor
// is what lay in its memory. Who asks next gets a new one, which fails as well where the error sticks: after an illegal
// address CUDA answers every call of the process with it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "core/status.h"
#include "device/device.h"
#include "packing/layout.h"

namespace lutra {

class DeviceContext {
 public:
  // Null where the device cannot be used, for the reason that the report gives.
  static std::shared_ptr<DeviceContext> open(const char* path, int32_t device, DeviceReport* report);
  DeviceContext(const LutraCudaTable* table, LutraCudaContext* context) : table_(table), context_(context) {}
  ~DeviceContext() { table_->destroy_context(context_); }
  DeviceContext(const DeviceContext&) = delete;
  DeviceContext& operator=(const DeviceContext&) = delete;

  // Calls `work(table, context)`, which answers with a LutraCudaResult; one call at a time, from any thread. kDevice,
  // where that is none, says in `found` whether it was LUTRA_CUDA_NO_MEMORY, and in `what` the device's own words.
  template <typename Work>
  Status call(Work&& work) {
    const std::lock_guard lock(mutex_);
    return status(work(*table_, context_));
  }
  bool failed() const { return failed_; }

 private:
  Status status(int32_t result);

  const LutraCudaTable* const table_;
  LutraCudaContext* const context_;
  std::mutex mutex_;
  std::atomic<bool> failed_ = false;
};

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer();
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  Status allocate(std::shared_ptr<DeviceContext> context, size_t bytes);
  // The caller's bytes may change when these return.
  Status upload(size_t offset, const void* from, size_t bytes);
  Status download(size_t offset, void* to, size_t bytes);
  Status clear();

  uint8_t* data() const { return data_; }
  const std::shared_ptr<DeviceContext>& context() const { return context_; }

 private:
  std::shared_ptr<DeviceContext> context_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// What memory of the host has become on a device: its bytes, made when they are first wanted there. There is one copy,
// which programs change: another context gets none, as the host's bytes may be older, and kDevice says so.
class DeviceCopy {
 public:
  // The copy, made where there is none yet. `host`: all of the memory.
  Status make(const std::shared_ptr<DeviceContext>& context, const void* host, size_t bytes,
              std::shared_ptr<DeviceBuffer>* copy);
  // The copy; zeros without a look at the host's bytes where there is none yet.
  Status reserve(const std::shared_ptr<DeviceContext>& context, size_t bytes, std::shared_ptr<DeviceBuffer>* copy);
  // kDevice where there is none.
  Status find(const std::shared_ptr<DeviceContext>& context, std::shared_ptr<DeviceBuffer>* copy) const;

 private:
  std::shared_ptr<DeviceBuffer> buffer_;
};

// Codes of the packed layout, in host memory, in the order in which the device's kernels take them.
Status make_fragments(const std::shared_ptr<DeviceContext>& context, const PackedLayout& layout, const uint32_t* codes,
                      std::shared_ptr<DeviceBuffer>* fragments);

}  // namespace lutra
