// The addon's exports. lib/native/addon.ts types every name here.
#include <napi.h>

#include <string>

#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/failure.h"
#include "binding/prepared_object.h"
#include "binding/program_object.h"
#include "binding/run_task.h"
#include "binding/tensor_object.h"
#include "device/device.h"
#include "ops/kernel_choices.h"
#include "ops/lut_gemm.h"
#include "platform/isa.h"

namespace lutra::binding {

namespace {

constexpr int64_t kMaxThreads = 4096;

LutOptions lut_options(const Napi::Value& mode, const Napi::Value& batch_invariant) {
  return {static_cast<Mode>(whole_number(mode, "lutGemm.mode", 0, 2)), flag(batch_invariant, "lutGemm.batchInvariant")};
}

// lutGemm(packed, x, y, mode, batchInvariant, threads): the short way for a decode step, x and y may be borrowed.
void lut_gemm_now(const Napi::CallbackInfo& info) {
  const auto& owned = PackedObject::from(info[0], "lutGemm").owned("lutGemm");
  const TensorView x = TensorObject::from(info[1], "lutGemm.x").view("lutGemm.x");
  const TensorView y = TensorObject::from(info[2], "lutGemm.out").view("lutGemm.out");
  const LutOptions options = lut_options(info[3], info[4]);
  const int threads = static_cast<int>(whole_number(info[5], "lutGemm.threads", 0, kMaxThreads));
  Context& context = Environment::of(info.Env()).context(threads);
  throw_unless_ok(info.Env(), lut_gemm(context, owned->view, x, y, options), "lutGemm");
}

// As lutGemm, with a cancel token or null behind.
Napi::Value lut_gemm_async(const Napi::CallbackInfo& info) {
  const auto owned = PackedObject::from(info[0], "lutGemm").owned("lutGemm");
  TensorObject& x = TensorObject::from(info[1], "lutGemm.x");
  TensorObject& y = TensorObject::from(info[2], "lutGemm.out");
  const LutOptions options = lut_options(info[3], info[4]);
  Job job;
  job.name = "lutGemm";
  job.threads = static_cast<int>(whole_number(info[5], "lutGemm.threads", 0, kMaxThreads));
  job.cancel = cancel_token(info[6]);
  job.work = [owned, options, x = x.view("lutGemm.x"), y = y.view("lutGemm.out"), keep_x = x.share("lutGemm.x"),
              keep_y = y.share("lutGemm.out")](Context& context, std::vector<double>&) {
    return lut_gemm(context, owned->view, x, y, options);
  };
  return Environment::of(info.Env()).submit(info.Env(), std::move(job));
}

Napi::Value native_memory(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(Storage::total()));
}

Napi::Array isa_names(Napi::Env env) {
  Napi::Array names = Napi::Array::New(env);
  for (const IsaLevel& level : isa_levels_here()) names.Set(names.Length(), level.name);
  return names;
}

Napi::Array lut_gemm_ways(Napi::Env env) {
  Napi::Array ways = Napi::Array::New(env);
  for (const LutChoice& choice : lut_choices()) {
    Napi::Object way = Napi::Object::New(env);
    way.Set("mode", choice.mode);
    way.Set("kind", choice.kind);
    way.Set("bits", choice.bits);
    way.Set("firstToken", static_cast<double>(choice.first_token));
    way.Set("lastToken",
            choice.last_token ? Napi::Number::New(env, static_cast<double>(choice.last_token)) : env.Null());
    way.Set("by", choice.way);
    ways.Set(ways.Length(), way);
  }
  return ways;
}

Napi::Value describe(const Napi::CallbackInfo& info) {
  Napi::Object facts = Napi::Object::New(info.Env());
  facts.Set("isa", isa_name());
  facts.Set("features", cpu_features());
  facts.Set("threads", Environment::of(info.Env()).lanes());
  facts.Set("isaOverrideValid", isa_override_valid());
  Napi::Object kernels = Napi::Object::New(info.Env());
  for (const KernelChoice& choice : kernel_choices()) kernels.Set(choice.family, choice.version);
  facts.Set("kernels", kernels);
  facts.Set("isas", isa_names(info.Env()));
  facts.Set("lutGemm", lut_gemm_ways(info.Env()));
  return facts;
}

// probeCuda(device, path or null): what kept the CUDA backend from being used, as the number of a DeviceState, and what
// is known.
Napi::Value probe_cuda(const Napi::CallbackInfo& info) {
  const int32_t device = static_cast<int32_t>(whole_number(info[0], "device", 0, 1024));
  const std::string path = info[1].IsString() ? info[1].As<Napi::String>().Utf8Value() : std::string();
  DeviceReport report;
  device_table(path.empty() ? nullptr : path.c_str(), device, &report);
  Napi::Object found = Napi::Object::New(info.Env());
  found.Set("state", static_cast<int>(report.state));
  found.Set("path", report.path);
  found.Set("detail", report.detail);
  found.Set("driverVersion", report.facts.driver_version);
  found.Set("runtimeVersion", report.facts.runtime_version);
  found.Set("computeCapability", report.facts.compute_capability);
  found.Set("memoryBytes", static_cast<double>(report.facts.memory_bytes));
  found.Set("name", report.facts.name);
  found.Set("builtFor", report.facts.built_for);
  return found;
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto environment = std::make_unique<Environment>(env);
  const auto add_class = [&](const char* name, Napi::Function constructor, Napi::FunctionReference* reference) {
    *reference = Napi::Persistent(constructor);
    exports.Set(name, constructor);
  };
  add_class("Tensor", TensorObject::define(env), &environment->tensor);
  add_class("Packed", PackedObject::define(env), &environment->packed);
  add_class("Prepared", PreparedObject::define(env), &environment->prepared);
  add_class("Program", ProgramObject::define(env), &environment->program);
  add_class("Cancel", CancelObject::define(env), &environment->cancel);
  exports.Set("lutGemm", Napi::Function::New<lut_gemm_now>(env, "lutGemm"));
  exports.Set("lutGemmAsync", Napi::Function::New<lut_gemm_async>(env, "lutGemmAsync"));
  exports.Set("task", Napi::Function::New<run_task>(env, "task"));
  exports.Set("nativeMemory", Napi::Function::New<native_memory>(env, "nativeMemory"));
  exports.Set("probeCuda", Napi::Function::New<probe_cuda>(env, "probeCuda"));
  exports.Set("describe", Napi::Function::New<describe>(env, "describe"));
  env.SetInstanceData(environment.release());
  return exports;
}

}  // namespace

NODE_API_MODULE(lutra, initialise)

}  // namespace lutra::binding
