#include "binding/program_object.h"

#include "binding/arguments.h"
#include "binding/device_operands.h"
#include "binding/environment.h"
#include "binding/failure.h"
#include "binding/tensor_object.h"

namespace lutra::binding {

namespace {

constexpr napi_type_tag kCancelTag = {0x6c75747261636e6c, 0x1};
constexpr int64_t kMaxPosition = int64_t{1} << 40;
constexpr int64_t kMaxThreads = 4096;

}  // namespace

Napi::Function CancelObject::define(Napi::Env env) {
  return DefineClass(env, "Cancel", {InstanceMethod<&CancelObject::cancel>("cancel")});
}

CancelObject::CancelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CancelObject>(info) {
  info.This().As<Napi::Object>().TypeTag(&kCancelTag);
}

CancelObject& CancelObject::from(const Napi::Value& value, const char* where) {
  require_tag(value, kCancelTag, "a cancel token is needed", where);
  return *Unwrap(value.As<Napi::Object>());
}

Napi::Function ProgramObject::define(Napi::Env env) {
  return DefineClass(
      env, "Program",
      {InstanceMethod<&ProgramObject::add>("add"), InstanceMethod<&ProgramObject::run>("run"),
       InstanceMethod<&ProgramObject::run_async>("runAsync"), InstanceMethod<&ProgramObject::length>("length"),
       InstanceMethod<&ProgramObject::reserve>("reserve"), InstanceMethod<&ProgramObject::upload>("upload"),
       InstanceMethod<&ProgramObject::download>("download"), InstanceMethod<&ProgramObject::dispose>("dispose")});
}

// new Program(device or null, path of the backend or null): on the processor where there is no device.
ProgramObject::ProgramObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProgramObject>(info) {
  if (info[0].IsNumber())
    device_ = std::make_shared<DeviceProgram>(open_device(info.Env(), info[0], info[1]));
  else
    program_ = std::make_shared<Program>();
}

void ProgramObject::check_alive(const char* where) {
  if (!program_ && !device_) throw bad_argument(Env(), "LUTRA_E_DISPOSED", "the program was disposed", where);
}

const std::shared_ptr<DeviceContext>& ProgramObject::context(const char* where) {
  check_alive(where);
  if (!device_) throw bad_argument(Env(), "LUTRA_E_OPTION", "the program runs on the processor", where);
  return device_->context();
}

// add(op, tensors, packed, parameters)
void ProgramObject::add(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int op = static_cast<int>(whole_number(info[0], "op", 0, 1000));
  std::vector<TensorView> tensors;
  std::vector<PackedView> packed;
  std::vector<std::shared_ptr<void>> keep;
  check_alive("Program.add");
  const std::shared_ptr<DeviceContext> context = device_ ? device_->context() : nullptr;
  each_element(info[1], Step::kMaxTensors, "Program.add: operands", [&](const Napi::Value& value) {
    TensorObject& tensor = TensorObject::from(value, "Program.add");
    keep.push_back(tensor.share("Program.add"));
    tensors.push_back(context ? device_view(tensor, context, "Program.add", &keep) : tensor.view("Program.add"));
  });
  each_element(info[2], Step::kMaxPacked, "Program.add: packed weights", [&](const Napi::Value& value) {
    const auto& owned = PackedObject::from(value, "Program.add").owned("Program.add");
    packed.push_back(context ? device_view(env, *owned, context, &keep) : owned->view);
    keep.push_back(owned);
  });
  const std::vector<double> parameters = number_array(info[3], "parameters", Step::kMaxParameters);
  // Only now: reading the arguments may have run JavaScript that disposed the program.
  check_alive("Program.add");
  if (device_) {
    if (device_.use_count() > 1)
      throw bad_argument(env, "LUTRA_E_OPTION", "the program runs: it takes no more operators", "Program.add");
    return throw_unless_ok(env, device_->add(op, tensors, packed, parameters, std::move(keep)), "Program.add");
  }
  if (program_.use_count() > 1) program_ = std::make_shared<Program>(*program_);
  throw_unless_ok(env, program_->add(op, tensors, packed, parameters, std::move(keep)), "Program.add");
}

// run(position, threads)
void ProgramObject::run(const Napi::CallbackInfo& info) {
  check_alive("Program.run");
  const StepScalars scalars{whole_number(info[0], "position", 0, kMaxPosition)};
  const int threads = static_cast<int>(whole_number(info[1], "threads", 0, kMaxThreads));
  if (device_) return throw_unless_ok(info.Env(), device_->run(scalars, nullptr), "Program.run");
  size_t failed = 0;
  const Status status = program_->run(Environment::of(info.Env()).context(threads), scalars, &failed);
  throw_unless_ok(info.Env(), status, program_->name_of(failed));
}

// runAsync(position, threads, cancel or null)
Napi::Value ProgramObject::run_async(const Napi::CallbackInfo& info) {
  const StepScalars scalars{whole_number(info[0], "position", 0, kMaxPosition)};
  Job job;
  job.threads = static_cast<int>(whole_number(info[1], "threads", 0, kMaxThreads));
  job.cancel = cancel_token(info[2]);
  job.name = "Program.runAsync";
  check_alive("Program.runAsync");
  job.work = [program = program_, device = device_, scalars](Context& context, std::vector<double>&) {
    if (device) return device->run(scalars, context.cancel);
    size_t failed = 0;
    return program->run(context, scalars, &failed);
  };
  return Environment::of(info.Env()).submit(info.Env(), std::move(job));
}

Napi::Value ProgramObject::length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(program_  ? program_->size()
                                                           : device_ ? device_->size()
                                                                     : 0));
}

void ProgramObject::reserve(const Napi::CallbackInfo& info) {
  TensorObject& tensor = TensorObject::from(info[0], "Program.reserve");
  binding::reserve(tensor, context("Program.reserve"));
}

void ProgramObject::upload(const Napi::CallbackInfo& info) {
  TensorObject& tensor = TensorObject::from(info[0], "Program.upload");
  binding::upload(tensor, context("Program.upload"));
}

void ProgramObject::download(const Napi::CallbackInfo& info) {
  TensorObject& tensor = TensorObject::from(info[0], "Program.download");
  binding::download(tensor, context("Program.download"));
}

void ProgramObject::dispose(const Napi::CallbackInfo&) {
  program_ = nullptr;
  device_ = nullptr;
}

}  // namespace lutra::binding
