// Cancels calls that take longer than a fifth of a second: parameters may ask for years of work, and a call that does
// not heed its token then runs into the fuzzer's own time limit.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "core/cancel.h"

namespace lutra::fuzz {

class Watch {
 public:
  Watch() : thread_([this] { run(); }) {}
  ~Watch() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  template <typename Work>
  void over(CancelToken& token, Work&& work) {
    {
      const std::lock_guard lock(mutex_);
      token_ = &token;
      since_ = std::chrono::steady_clock::now();
    }
    work();
    const std::lock_guard lock(mutex_);
    token_ = nullptr;
  }

 private:
  void run() {
    using std::chrono::milliseconds;
    std::unique_lock lock(mutex_);
    while (!ended_) {
      changed_.wait_for(lock, milliseconds(50));
      if (token_ && std::chrono::steady_clock::now() - since_ > milliseconds(200)) token_->cancel();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  CancelToken* token_ = nullptr;
  std::chrono::steady_clock::time_point since_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace lutra::fuzz
