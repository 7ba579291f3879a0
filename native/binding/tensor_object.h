// JavaScript's handles on memory: Tensor, and Packed for the arrays of a packed matrix.
#pragma once

#include <napi.h>

#include <array>
#include <memory>

#include "core/aligned_buffer.h"
#include "core/tensor_view.h"
#include "device/device_memory.h"
#include "packing/layout.h"

namespace lutra::binding {

// Native memory, zero at first, with its bytes counted for nativeMemory().
struct Storage {
  explicit Storage(size_t bytes);
  ~Storage();
  static int64_t total();
  // Memory that tensors do not own and nativeMemory() tells all the same.
  static void count(int64_t bytes);

  AlignedBuffer buffer;
  DeviceCopy device;  // of the whole buffer, where a program on a device uses it
};

class TensorObject : public Napi::ObjectWrap<TensorObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // The tensor behind a JavaScript value; throws where it is none, or was disposed.
  static TensorObject& from(const Napi::Value& value, const char* where);

  explicit TensorObject(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override { report_bytes(env, 0); }

  // The memory as it is now: for a borrowed array its address is looked up, and a detached one throws.
  TensorView view(const char* where);
  // What keeps native memory alive; throws for a borrowed array, which nothing here can keep attached.
  std::shared_ptr<Storage> share(const char* where);

 private:
  static Napi::Value borrow(const Napi::CallbackInfo& info);
  void read(const Napi::CallbackInfo& info);
  void write(const Napi::CallbackInfo& info);
  Napi::Value sub_view(const Napi::CallbackInfo& info);
  void fill(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  void check_alive(const char* where);
  // Tells V8 how many bytes this object holds outside its heap, so that it collects before memory runs out.
  void report_bytes(Napi::BasicEnv env, int64_t bytes);

  TensorView view_;
  int64_t reported_ = 0;
  size_t byte_offset_ = 0;  // of the view in a borrowed array
  std::shared_ptr<Storage> storage_;
  Napi::Reference<Napi::TypedArray> borrowed_;
  bool disposed_ = false;
};

class PackedObject : public Napi::ObjectWrap<PackedObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static PackedObject& from(const Napi::Value& value, const char* where);

  explicit PackedObject(const Napi::CallbackInfo& info);

  // Shared, so that programs and running jobs outlive dispose().
  struct Owned {
    PackedView view;
    std::shared_ptr<Storage> codes, scales, offsets;
    std::array<std::shared_ptr<Storage>, 4> sub_branch;
    std::shared_ptr<DeviceBuffer> fragments;  // the codes on a device
  };
  const std::shared_ptr<Owned>& owned(const char* where);

 private:
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Owned> owned_;
};

}  // namespace lutra::binding
