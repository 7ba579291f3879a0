// JavaScript's handle on activations laid out for several packed matrices.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "binding/tensor_object.h"
#include "ops/lut_prepared.h"

namespace lutra::binding {

class PreparedObject : public Napi::ObjectWrap<PreparedObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit PreparedObject(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override { report_bytes(env, 0); }

 private:
  void update(const Napi::CallbackInfo& info);
  void multiply(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  void prepare(const Napi::Value& x, const Napi::Value& threads);
  // Counts the prepared memory in nativeMemory() and tells V8 of it.
  void report_bytes(Napi::BasicEnv env, int64_t bytes);

  // The weights stay alive with what was prepared for them.
  std::vector<std::shared_ptr<PackedObject::Owned>> weights_;
  LutOptions options_{Mode::kAccurate};
  std::unique_ptr<LutPrepared> prepared_ = std::make_unique<LutPrepared>();
  int64_t reported_ = 0;
};

}  // namespace lutra::binding
