#include "binding/prepared_object.h"

#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/failure.h"

namespace lutra::binding {

namespace {

constexpr const char* kWhere = "Prepared";
constexpr uint32_t kMaxWeights = 4096;
constexpr int64_t kMaxThreads = 4096;

}  // namespace

Napi::Function PreparedObject::define(Napi::Env env) {
  return DefineClass(
      env, "Prepared",
      {InstanceMethod<&PreparedObject::update>("update"), InstanceMethod<&PreparedObject::multiply>("multiply"),
       InstanceMethod<&PreparedObject::dispose>("dispose")});
}

// new Prepared(packed, x, mode, batchInvariant, threads)
PreparedObject::PreparedObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PreparedObject>(info) {
  each_element(info[0], kMaxWeights, kWhere,
               [&](const Napi::Value& value) { weights_.push_back(PackedObject::from(value, kWhere).owned(kWhere)); });
  options_ = {static_cast<Mode>(whole_number(info[2], "mode", 0, 2)), flag(info[3], "batchInvariant")};
  prepare(info[1], info[4]);
}

void PreparedObject::prepare(const Napi::Value& x, const Napi::Value& threads) {
  if (!prepared_) throw bad_argument(Env(), "LUTRA_E_DISPOSED", "the prepared activations were disposed", kWhere);
  const TensorView view = TensorObject::from(x, kWhere).view(kWhere);
  Context& context = Environment::of(Env()).context(static_cast<int>(whole_number(threads, "threads", 0, kMaxThreads)));
  std::vector<PackedView> weights;
  for (const auto& owned : weights_) weights.push_back(owned->view);
  const Status status = prepared_->prepare(context, std::move(weights), view, options_);
  report_bytes(Env(), static_cast<int64_t>(prepared_->bytes()));
  throw_unless_ok(Env(), status, kWhere);
}

void PreparedObject::report_bytes(Napi::BasicEnv env, int64_t bytes) {
  if (bytes == reported_) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes - reported_);
  Storage::count(bytes - reported_);
  reported_ = bytes;
}

// update(x, threads)
void PreparedObject::update(const Napi::CallbackInfo& info) { prepare(info[0], info[1]); }

// multiply(index, y, threads)
void PreparedObject::multiply(const Napi::CallbackInfo& info) {
  if (!prepared_) throw bad_argument(Env(), "LUTRA_E_DISPOSED", "the prepared activations were disposed", kWhere);
  const size_t weight = static_cast<size_t>(whole_number(info[0], "index", 0, kMaxWeights));
  const TensorView y = TensorObject::from(info[1], kWhere).view(kWhere);
  const int threads = static_cast<int>(whole_number(info[2], "threads", 0, kMaxThreads));
  throw_unless_ok(Env(), prepared_->multiply(Environment::of(Env()).context(threads), weight, y), kWhere);
}

void PreparedObject::dispose(const Napi::CallbackInfo& info) {
  report_bytes(info.Env(), 0);
  prepared_ = nullptr;
  weights_.clear();
}

}  // namespace lutra::binding
