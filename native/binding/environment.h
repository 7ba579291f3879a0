// What one JavaScript environment (the main thread or a worker) owns: constructors, a context for calls on its own
// thread, and a dispatcher thread for asynchronous ones. Never libuv's pool.
#pragma once

#include <napi.h>

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cancel.h"
#include "core/status.h"
#include "ops/context.h"

namespace lutra::binding {

// One asynchronous call. `work` runs on the dispatcher thread and touches no JavaScript value.
struct Job {
  std::function<Status(Context&, std::vector<double>& answer)> work;
  const char* name = "";
  int threads = 0;
  bool answers = false;  // resolve with the numbers of `answer` instead of undefined
  std::shared_ptr<CancelToken> cancel;
  std::unique_ptr<Napi::Promise::Deferred> promise;
  Status status;
  std::vector<double> answer;
};

class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment();

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  Napi::Promise submit(Napi::Env env, Job job);
  // For calls on the JavaScript thread.
  Context& context(int threads) {
    context_.threads = threads;
    return context_;
  }
  int lanes() const { return pool_->lanes(); }

  Napi::FunctionReference tensor, packed, prepared, program, cancel;

 private:
  static void on_done(Napi::Env env, Napi::Function, Environment* self, void*);
  using Notify = Napi::TypedThreadSafeFunction<Environment, void, &Environment::on_done>;

  void dispatch();
  void settle(Napi::Env env);
  void shut_down();

  std::shared_ptr<ThreadPool> pool_;
  Context context_;

  std::mutex mutex_;
  std::condition_variable wake_;
  // A job's node is made where it is submitted and handed on from list to list: on the dispatcher thread nobody could
  // catch that there is no memory for another.
  std::list<Job> waiting_;
  std::list<Job> done_;
  std::shared_ptr<CancelToken> running_;
  bool stop_ = false;
  std::thread dispatcher_;
  Notify notify_;
  int pending_ = 0;  // jobs whose promise is open; the event loop stays alive while there are any
};

}  // namespace lutra::binding
