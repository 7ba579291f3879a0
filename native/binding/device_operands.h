// Operands of a program on a device: the copies that native memory has there, made when a program first names it.
#pragma once

#include <memory>
#include <vector>

#include "binding/tensor_object.h"
#include "device/device_memory.h"

namespace lutra::binding {

// The context of device `index` of the backend at `path` (null: beside the addon); throws where it cannot be used.
std::shared_ptr<DeviceContext> open_device(Napi::Env env, const Napi::Value& index, const Napi::Value& path);

// The same view with its data on the device. `keep` gets what keeps that memory.
TensorView device_view(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context, const char* where,
                       std::vector<std::shared_ptr<void>>* keep);
PackedView device_view(Napi::Env env, PackedObject::Owned& packed, const std::shared_ptr<DeviceContext>& context,
                       std::vector<std::shared_ptr<void>>* keep);

// A copy of zeros where there is none; the tensor's bytes to its copy, and back.
void reserve(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context);
void upload(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context);
void download(TensorObject& tensor, const std::shared_ptr<DeviceContext>& context);

}  // namespace lutra::binding
