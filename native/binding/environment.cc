#include "binding/environment.h"

#include <chrono>
#include <new>

#include "binding/failure.h"

namespace lutra::binding {

// A job that takes longer gives its scratch back: that may be large, and the next one gets its own in a small share of
// such a time. Short ones, as the steps of a decoder, keep it for each other.
constexpr std::chrono::milliseconds kLongJob{100};

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

void Environment::on_done(Napi::Env env, Napi::Function, Environment* self, void*) {
  if (env) self->settle(env);
}

Napi::Promise Environment::submit(Napi::Env env, Job job) {
  if (!dispatcher_.joinable()) {
    notify_ = Notify::New(env, "lutra.dispatcher", 0, 1, this);
    notify_.Unref(env);
    // Hooks run last in, first out: the dispatcher has ended before the function it calls is torn down.
    env.AddCleanupHook([this] { shut_down(); });
    dispatcher_ = std::thread([this] { dispatch(); });
  }
  job.promise = std::make_unique<Napi::Promise::Deferred>(Napi::Promise::Deferred::New(env));
  const Napi::Promise promise = job.promise->Promise();
  if (!job.cancel) job.cancel = std::make_shared<CancelToken>();
  std::list<Job> one;
  one.push_back(std::move(job));
  // From here on nothing fails: whoever counts a job settles it.
  if (pending_++ == 0) notify_.Ref(env);
  {
    std::lock_guard lock(mutex_);
    waiting_.splice(waiting_.end(), one);
  }
  wake_.notify_one();
  return promise;
}

void Environment::dispatch() {
  Context context;
  context.pool = pool_.get();
  for (;;) {
    std::list<Job> one;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      one.splice(one.begin(), waiting_, waiting_.begin());
      running_ = one.front().cancel;
    }
    Job& job = one.front();
    context.cancel = job.cancel.get();
    context.threads = job.threads;
    const auto start = std::chrono::steady_clock::now();
    try {
      job.status = job.work(context, job.answer);
    } catch (const std::bad_alloc&) {
      job.status = error(Code::kOutOfMemory, "out of memory");
    }
    job.work = nullptr;  // lets go of the operands
    if (std::chrono::steady_clock::now() - start > kLongJob) {
      context = Context();
      context.pool = pool_.get();
    }
    std::lock_guard lock(mutex_);
    running_ = nullptr;
    if (stop_) return;
    done_.splice(done_.end(), one);
    notify_.NonBlockingCall();
  }
}

void Environment::settle(Napi::Env env) {
  std::list<Job> done;
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
