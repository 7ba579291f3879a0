#include "device/device_memory.h"

#include <map>
#include <set>
#include <string>

namespace lutra {

namespace {

// What is wrong with the device's own words for it. A Status holds no memory, so texts stay: one for each call of CUDA
// and error, as both are names.
const char* explained(const char* what, const char* words) {
  static std::mutex mutex;
  static auto* const texts = new std::set<std::string>;  // which no destructor takes from threads that still run
  const std::string text = words && words[0] ? std::string(what) + ": " + words : what;
  const std::lock_guard lock(mutex);
  return texts->insert(text).first->c_str();
}

}  // namespace

std::shared_ptr<DeviceContext> DeviceContext::open(const char* path, int32_t device, DeviceReport* report) {
  static std::mutex mutex;
  static std::map<std::pair<const LutraCudaTable*, int32_t>, std::weak_ptr<DeviceContext>> contexts;
  const LutraCudaTable* const table = device_table(path, device, report);
  if (!table) return nullptr;
  const std::lock_guard lock(mutex);
  std::weak_ptr<DeviceContext>& known = contexts[{table, device}];
  std::shared_ptr<DeviceContext> found = known.lock();
  if (found && !found->failed()) return found;
  LutraCudaContext* context = nullptr;
  const int32_t created = table->create_context(device, &context);
  if (created != LUTRA_CUDA_OK) {
    report->state = device_state(created);
    return nullptr;
  }
  found = std::make_shared<DeviceContext>(table, context);
  known = found;
  return found;
}

Status DeviceContext::status(int32_t result) {
  switch (result) {
    case LUTRA_CUDA_OK:
      return ok_status();
    case LUTRA_CUDA_NO_MEMORY:
      return error(Code::kDevice, "the device has no memory left", result);
    case LUTRA_CUDA_ARGUMENT:
      return error(Code::kDevice, explained("the device does not take this", table_->last_error(context_)));
    default:
      failed_ = true;
      return error(Code::kDevice, explained("the device failed", table_->last_error(context_)));
  }
}

DeviceBuffer::~DeviceBuffer() {
  if (data_)
    static_cast<void>(context_->call([&](auto& table, auto* context) { return table.release(context, data_); }));
}

Status DeviceBuffer::allocate(std::shared_ptr<DeviceContext> context, size_t bytes) {
  void* data = nullptr;
  LUTRA_TRY(context->call([&](auto& table, auto* c) { return table.allocate(c, bytes, &data); }));
  context_ = std::move(context);
  data_ = static_cast<uint8_t*>(data);
  bytes_ = bytes;
  return ok_status();
}

Status DeviceBuffer::upload(size_t offset, const void* from, size_t bytes) {
  if (offset > bytes_ || bytes > bytes_ - offset) return error(Code::kShape, "upload: past the memory's end");
  if (bytes == 0) return ok_status();
  return context_->call([&](auto& table, auto* context) {
    const int32_t result = table.upload(context, nullptr, data_ + offset, from, bytes);
    return result == LUTRA_CUDA_OK ? table.synchronize(context, nullptr) : result;
  });
}

Status DeviceBuffer::download(size_t offset, void* to, size_t bytes) {
  if (offset > bytes_ || bytes > bytes_ - offset) return error(Code::kShape, "download: past the memory's end");
  if (bytes == 0) return ok_status();
  return context_->call([&](auto& table, auto* context) {
    const int32_t result = table.download(context, nullptr, to, data_ + offset, bytes);
    return result == LUTRA_CUDA_OK ? table.synchronize(context, nullptr) : result;
  });
}

Status DeviceBuffer::clear() {
  return context_->call([&](auto& table, auto* context) { return table.clear(context, nullptr, data_, bytes_); });
}

Status DeviceCopy::make(const std::shared_ptr<DeviceContext>& context, const void* host, size_t bytes,
                        std::shared_ptr<DeviceBuffer>* copy) {
  if (!buffer_) {
    auto made = std::make_shared<DeviceBuffer>();
    LUTRA_TRY(made->allocate(context, bytes));
    LUTRA_TRY(made->upload(0, host, bytes));
    buffer_ = std::move(made);
  }
  return find(context, copy);
}

Status DeviceCopy::reserve(const std::shared_ptr<DeviceContext>& context, size_t bytes,
                           std::shared_ptr<DeviceBuffer>* copy) {
  if (!buffer_) {
    auto made = std::make_shared<DeviceBuffer>();
    LUTRA_TRY(made->allocate(context, bytes));
    LUTRA_TRY(made->clear());
    buffer_ = std::move(made);
  }
  return find(context, copy);
}

Status DeviceCopy::find(const std::shared_ptr<DeviceContext>& context, std::shared_ptr<DeviceBuffer>* copy) const {
  if (!buffer_) return error(Code::kDevice, "no program on the device named this tensor: it has no copy there");
  if (buffer_->context() != context)
    return error(Code::kDevice, buffer_->context()->failed() ? "this tensor's copy was lost when its device failed"
                                                             : "this tensor's copy is on another device");
  *copy = buffer_;
  return ok_status();
}

Status make_fragments(const std::shared_ptr<DeviceContext>& context, const PackedLayout& layout, const uint32_t* codes,
                      std::shared_ptr<DeviceBuffer>* fragments) {
  if (layout.bits < 2 || layout.bits > 4) return error(Code::kUnsupported, "no kernel has this width", layout.bits);
  const size_t bytes = static_cast<size_t>(layout.codes_words()) * sizeof(uint32_t);
  const int64_t words = LUTRA_CUDA_FRAGMENT_WORDS(layout.rows, layout.cols, layout.bits);
  DeviceBuffer tiles;
  auto made = std::make_shared<DeviceBuffer>();
  LUTRA_TRY(tiles.allocate(context, bytes));
  LUTRA_TRY(made->allocate(context, static_cast<size_t>(words) * sizeof(uint32_t)));
  LUTRA_TRY(tiles.upload(0, codes, bytes));
  const LutraCudaFragments op = {sizeof op,
                                 layout.bits,
                                 layout.rows,
                                 layout.cols,
                                 reinterpret_cast<const uint32_t*>(tiles.data()),
                                 reinterpret_cast<uint32_t*>(made->data())};
  LUTRA_TRY(context->call([&](auto& table, auto* c) {
    const int32_t result = table.launch(c, nullptr, LUTRA_CUDA_OP_FRAGMENTS, &op);
    return result == LUTRA_CUDA_OK ? table.synchronize(c, nullptr) : result;
  }));
  *fragments = std::move(made);
  return ok_status();
}

}  // namespace lutra
