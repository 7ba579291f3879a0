#include "binding/environment.h"

#include <new>

#include "binding/failure.h"

namespace lutra::binding {

Environment::Environment(Napi::Env) : pool_(ThreadPool::acquire()) { context_.pool = pool_.get(); }

Environment::~Environment() { shut_down(); }

void Environment::shut_down() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    for (Job& job : waiting_) job.cancel->cancel();
    if (running_) running_->cancel();
  }
  wake_.notify_all();
  if (dispatcher_.joinable()) dispatcher_.join();
}

Napi::Promise Environment::submit(Napi::Env env, Job job) {
  if (!dispatcher_.joinable()) {
    notify_ = Napi::ThreadSafeFunction::New(env, Napi::Function(), "lutra.dispatcher", 0, 1);
    notify_.Unref(env);
    // Hooks run last in, first out: the dispatcher has ended before the function it calls is torn down.
    env.AddCleanupHook([this] { shut_down(); });
    dispatcher_ = std::thread([this] { dispatch(); });
  }
  job.promise = std::make_unique<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
  const Napi::Promise promise = job.promise->Promise();
  if (!job.cancel) job.cancel = std::make_shared<CancelToken>();
  if (pending_++ == 0) notify_.Ref(env);
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(job));
  }
  wake_.notify_one();
  return promise;
}

void Environment::dispatch() {
  Context context;
  context.pool = pool_.get();
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      job = std::move(waiting_.front());
      waiting_.pop_front();
      running_ = job.cancel;
    }
    context.cancel = job.cancel.get();
    context.threads = job.threads;
    try {
      job.status = job.work(context, job.answer);
    } catch (const std::bad_alloc&) {
      job.status = error(Code::kOutOfMemory, "out of memory");
    }
    job.work = nullptr;  // lets go of the operands
    std::lock_guard lock(mutex_);
    running_ = nullptr;
    if (stop_) return;
    done_.push_back(std::move(job));
    notify_.NonBlockingCall([this](Napi::Env env, Napi::Function) {
      if (env) settle(env);
    });
  }
}

void Environment::settle(Napi::Env env) {
  std::deque<Job> done;
  {
    std::lock_guard lock(mutex_);
    done.swap(done_);
  }
  for (Job& job : done) {
    if (--pending_ == 0) notify_.Unref(env);
    if (!job.status.ok()) {
      job.promise->Reject(failure(env, job.status, job.name).Value());
      continue;
    }
    if (!job.answers) {
      job.promise->Resolve(env.Undefined());
      continue;
    }
    Napi::Array numbers = Napi::Array::New(env, job.answer.size());
    for (size_t i = 0; i < job.answer.size(); ++i)
      numbers.Set(static_cast<uint32_t>(i), Napi::Number::New(env, job.answer[i]));
    job.promise->Resolve(numbers);
  }
}

}  // namespace lutra::binding
