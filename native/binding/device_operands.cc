#include "binding/device_operands.h"

#include <string>

#include "binding/arguments.h"
#include "binding/failure.h"

namespace lutra::binding {

namespace {

// Where `data`, which lies in the storage, lies on the device.
uint8_t* device_address(Napi::Env env, Storage& storage, const void* data,
                        const std::shared_ptr<DeviceContext>& context, std::shared_ptr<DeviceBuffer>* buffer) {
  const uint8_t* const base = storage.buffer.as<uint8_t>();
  throw_unless_ok(env, storage.device.make(context, base, storage.buffer.bytes(), buffer), "device");
  return (*buffer)->data() + (static_cast<const uint8_t*>(data) - base);
}

}  // namespace

std::shared_ptr<DeviceContext> open_device(Napi::Env env, const Napi::Value& index, const Napi::Value& path) {
  const int32_t device = static_cast<int32_t>(whole_number(index, "device", 0, 1024));
  const std::string object = path.IsString() ? path.As<Napi::String>().Utf8Value() : std::string();
  DeviceReport report;
  auto context = DeviceContext::open(object.empty() ? nullptr : object.c_str(), device, &report);
  if (!context && report.state == DeviceState::kNoMemory)
    throw failure(env, error(Code::kDevice, "the device has no memory left, even for a context", LUTRA_CUDA_NO_MEMORY),
                  "Program");
  if (!context) throw bad_argument(env, "LUTRA_E_DEVICE", "the device cannot be used", "Program");
  return context;
}

TensorView device_view(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context, const char* where,
                       std::vector<std::shared_ptr<void>>* keep) {
  TensorView view = tensor.view(where);
  const std::shared_ptr<Storage> storage = tensor.share(where);
  std::shared_ptr<DeviceBuffer> buffer;
  view.data = device_address(tensor.Env(), *storage, view.data, context, &buffer);
  keep->push_back(std::move(buffer));
  return view;
}

PackedView device_view(Napi::Env env, PackedObject::Owned& packed, const std::shared_ptr<DeviceContext>& context,
                       std::vector<std::shared_ptr<void>>* keep) {
  PackedView view = packed.view;
  const auto move = [&](const std::shared_ptr<Storage>& storage, auto* data) {
    if (!storage || !data) return data;
    std::shared_ptr<DeviceBuffer> buffer;
    const uint8_t* const address = device_address(env, *storage, data, context, &buffer);
    keep->push_back(std::move(buffer));
    return reinterpret_cast<decltype(data)>(address);
  };
  if (!packed.fragments || packed.fragments->context() != context)
    throw_unless_ok(env, make_fragments(context, view.layout, view.codes, &packed.fragments), "device");
  view.codes = reinterpret_cast<const uint32_t*>(packed.fragments->data());
  keep->push_back(packed.fragments);
  const auto byte_pointer = [](const void* data) { return static_cast<const uint8_t*>(data); };
  view.scales = move(packed.scales, byte_pointer(view.scales));
  view.offsets = move(packed.offsets, byte_pointer(view.offsets));
  SubBranch& branch = view.sub_branch;
  branch.a = move(packed.sub_branch[0], byte_pointer(branch.a));
  branch.b = move(packed.sub_branch[1], byte_pointer(branch.b));
  branch.a_scales = move(packed.sub_branch[2], branch.a_scales);
  branch.b_scales = move(packed.sub_branch[3], branch.b_scales);
  return view;
}

void reserve(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context) {
  const std::shared_ptr<Storage> storage = tensor.share("Program.reserve");
  std::shared_ptr<DeviceBuffer> buffer;
  throw_unless_ok(tensor.Env(), storage->device.reserve(context, storage->buffer.bytes(), &buffer), "Program.reserve");
}

void upload(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context) {
  const TensorView view = tensor.view("Program.upload");
  std::shared_ptr<DeviceBuffer> buffer;
  uint8_t* const to = device_address(tensor.Env(), *tensor.share("Program.upload"), view.data, context, &buffer);
  throw_unless_ok(tensor.Env(), buffer->upload(static_cast<size_t>(to - buffer->data()), view.data, view.bytes()),
                  "Program.upload");
}

void download(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context) {
  const TensorView view = tensor.view("Program.download");
  const std::shared_ptr<Storage> storage = tensor.share("Program.download");
  std::shared_ptr<DeviceBuffer> buffer;
  throw_unless_ok(tensor.Env(), storage->device.find(context, &buffer), "Program.download");
  const ptrdiff_t offset = static_cast<const uint8_t*>(view.data) - storage->buffer.as<uint8_t>();
  throw_unless_ok(tensor.Env(), buffer->download(static_cast<size_t>(offset), view.data, view.bytes()),
                  "Program.download");
}

}  // namespace lutra::binding
