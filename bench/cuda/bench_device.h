// A context of the CUDA backend for benchmarks: memory, and times by events over replayed graphs.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "device/device.h"

namespace lutra::bench {

class BenchDevice {
 public:
  // Ends the program with a word where the device refuses: a time without its work would be worth nothing.
  BenchDevice(const LutraCudaTable* table, const LutraCudaFacts& facts) : table_(table), facts_(facts) {
    expect(table_->create_context(0, &context_), "create_context");
    expect(table_->create_event(context_, &from_), "create_event");
    expect(table_->create_event(context_, &to_), "create_event");
  }
  ~BenchDevice() { table_->destroy_context(context_); }
  BenchDevice(const BenchDevice&) = delete;
  BenchDevice& operator=(const BenchDevice&) = delete;

  const LutraCudaFacts& facts() const { return facts_; }

  void* memory(size_t bytes) {
    void* data = nullptr;
    expect(table_->allocate(context_, bytes, &data), "allocate");
    return data;
  }
  void release(void* data) { expect(table_->release(context_, data), "release"); }
  template <typename T>
  T* uploaded(const std::vector<T>& values) {
    void* const to = memory(values.size() * sizeof(T));
    expect(table_->upload(context_, nullptr, to, values.data(), values.size() * sizeof(T)), "upload");
    expect(table_->synchronize(context_, nullptr), "synchronize");
    return static_cast<T*>(to);
  }
  template <typename T>
  std::vector<T> downloaded(const void* from, size_t count) {
    std::vector<T> values(count);
    expect(table_->download(context_, nullptr, values.data(), from, count * sizeof(T)), "download");
    expect(table_->synchronize(context_, nullptr), "synchronize");
    return values;
  }
  void copy(void* to, const void* from, size_t bytes) {
    expect(table_->copy(context_, nullptr, to, from, bytes), "copy");
  }
  void clear(void* data, size_t bytes) { expect(table_->clear(context_, nullptr, data, bytes), "clear"); }
  template <typename Op>
  void launch(int32_t op, const Op& arguments) {
    expect(table_->launch(context_, nullptr, op, &arguments), "launch");
  }
  uint64_t workspace(const LutraCudaLutGemm& op) {
    uint64_t bytes = 0;
    expect(table_->workspace(context_, LUTRA_CUDA_OP_LUT_GEMM, &op, &bytes), "workspace");
    return bytes;
  }

  // Microseconds of one of `turns` calls of work(turn): captured once as a graph, replayed, the median of the replays.
  double microseconds(int turns, const std::function<void(int turn)>& work) {
    LutraCudaGraph* graph = nullptr;
    expect(table_->synchronize(context_, nullptr), "synchronize");
    expect(table_->begin_capture(context_, nullptr), "begin_capture");
    for (int turn = 0; turn < turns; ++turn) work(turn);
    expect(table_->end_capture(context_, nullptr, &graph), "end_capture");
    const double time =
        median_time(nullptr, turns, [&] { expect(table_->replay(context_, nullptr, graph), "replay"); });
    expect(table_->destroy_graph(context_, graph), "destroy_graph");
    return time;
  }
  // The same of calls that go to a stream of the context by other ways than its table, one after the other.
  double microseconds_of_calls(int turns, const std::function<void(LutraCudaStream* stream, int turn)>& work) {
    LutraCudaStream* stream = nullptr;
    expect(table_->synchronize(context_, nullptr), "synchronize");
    expect(table_->create_stream(context_, &stream), "create_stream");
    const double time = median_time(stream, turns, [&] {
      for (int turn = 0; turn < turns; ++turn) work(stream, turn);
    });
    expect(table_->destroy_stream(context_, stream), "destroy_stream");
    return time;
  }

 private:
  double median_time(LutraCudaStream* stream, int turns, const std::function<void()>& round) {
    std::vector<double> times;
    constexpr int kWarm = 3;
    constexpr int kRounds = 21;
    for (int i = 0; i < kWarm + kRounds; ++i) {
      float milliseconds = 0;
      expect(table_->record(context_, stream, from_), "record");
      round();
      expect(table_->record(context_, stream, to_), "record");
      expect(table_->synchronize(context_, stream), "synchronize");
      expect(table_->elapsed(context_, from_, to_, &milliseconds), "elapsed");
      if (i >= kWarm) times.push_back(static_cast<double>(milliseconds) * 1e3 / turns);
    }
    std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
    return times[kRounds / 2];
  }

  void expect(int32_t result, const char* call) {
    if (result == LUTRA_CUDA_OK) return;
    std::fprintf(stderr, "%s: %s\n", call, context_ ? table_->last_error(context_) : "no context");
    std::exit(1);
  }

  const LutraCudaTable* table_;
  LutraCudaFacts facts_;
  LutraCudaContext* context_ = nullptr;
  LutraCudaEvent* from_ = nullptr;
  LutraCudaEvent* to_ = nullptr;
};

}  // namespace lutra::bench
