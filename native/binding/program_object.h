// JavaScript's handles on a recorded program and on a cancel token.
#pragma once

#include <napi.h>

#include <memory>

#include "core/cancel.h"
#include "program/device_program.h"
#include "program/program.h"

namespace lutra::binding {

class CancelObject : public Napi::ObjectWrap<CancelObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static CancelObject& from(const Napi::Value& value, const char* where);
  explicit CancelObject(const Napi::CallbackInfo& info);
  const std::shared_ptr<CancelToken>& token() const { return token_; }

 private:
  void cancel(const Napi::CallbackInfo&) { token_->cancel(); }
  std::shared_ptr<CancelToken> token_ = std::make_shared<CancelToken>();
};

class ProgramObject : public Napi::ObjectWrap<ProgramObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ProgramObject(const Napi::CallbackInfo& info);

 private:
  void add(const Napi::CallbackInfo& info);
  void run(const Napi::CallbackInfo& info);
  Napi::Value run_async(const Napi::CallbackInfo& info);
  Napi::Value length(const Napi::CallbackInfo& info);
  void reserve(const Napi::CallbackInfo& info);
  void upload(const Napi::CallbackInfo& info);
  void download(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  void check_alive(const char* where);
  // Of a program on a device; throws where it is none.
  const std::shared_ptr<DeviceContext>& context(const char* where);

  // One of the two, shared with running jobs; add() after a submitted run starts a copy of the processor's.
  std::shared_ptr<Program> program_;
  std::shared_ptr<DeviceProgram> device_;
};

}  // namespace lutra::binding
