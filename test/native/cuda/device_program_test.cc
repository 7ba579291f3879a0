// Programs on a device: what is launched together answers as what is launched alone, and everything is given back.
#include "program/device_program.h"

#include "../operands.h"
#include "program/op_table.h"
#include "test_device.h"

using namespace lutra;
using namespace lutra::test;

namespace {

std::shared_ptr<DeviceContext> open_context() {
  DeviceReport report;
  return DeviceContext::open(std::getenv("LUTRA_CUDA_PATH"), 0, &report);
}

int op_named(const char* name) {
  int op = 0;
  for (const OpRow& row : op_table()) {
    if (std::strcmp(row.name, name) == 0) return op;
    ++op;
  }
  fail(__FILE__, __LINE__, name);
  return -1;
}

// A matrix of numbers here and on the device.
struct Mirrored {
  Mirrored(const std::shared_ptr<DeviceContext>& context, int64_t rows, int64_t cols, uint64_t seed)
      : numbers(static_cast<size_t>(rows * cols)) {
    fill(numbers.data(), numbers.size(), Distribution::kNormal, seed);
    here.data = numbers.data();
    here.rank = 2;
    here.shape[0] = rows;
    here.shape[1] = cols;
    CHECK(buffer.allocate(context, here.bytes()).ok());
    CHECK(buffer.upload(0, numbers.data(), here.bytes()).ok());
    there = here;
    there.data = buffer.data();
  }
  std::vector<float> downloaded() {
    std::vector<float> values(numbers.size());
    CHECK(buffer.download(0, values.data(), here.bytes()).ok());
    return values;
  }

  std::vector<float> numbers;
  DeviceBuffer buffer;
  TensorView here, there;
};

// The same operators on the processor and on the device.
struct BothPrograms {
  explicit BothPrograms(const std::shared_ptr<DeviceContext>& context) : there(context) {}
  void add(const char* name, std::vector<const Mirrored*> operands, std::vector<double> parameters = {}) {
    std::vector<TensorView> of_here, of_there;
    for (const Mirrored* operand : operands) {
      of_here.push_back(operand->here);
      of_there.push_back(operand->there);
    }
    if (std::strcmp(name, "rmsNorm") == 0)  // its weight is a vector
      for (auto* views : {&of_here, &of_there}) {
        (*views)[1].rank = 1;
        (*views)[1].shape[0] = (*views)[1].shape[1];
      }
    CHECK(here.add(op_named(name), of_here, {}, parameters, {}).ok());
    const Status status = there.add(op_named(name), of_there, {}, parameters, {});
    if (!status.ok()) fail(__FILE__, __LINE__, status.what);
  }
  void run(int64_t position) {
    Lanes lanes(1);
    size_t failed = 0;
    CHECK(here.run(lanes.context, {position}, &failed).ok());
    CHECK(there.run({position}, nullptr).ok());
  }

  Program here;
  DeviceProgram there;
};

}  // namespace

LUTRA_TEST(cuda_step, operators_that_stand_side_by_side_are_launched_together) {
  if (no_device()) return;
  const auto context = open_context();
  Mirrored hidden(context, 2, 32, 1), added(context, 2, 32, 2), weight(context, 1, 32, 3), angles(context, 9, 8, 4);
  Mirrored q(context, 2, 32, 5), k(context, 2, 16, 6), v(context, 2, 16, 7), y(context, 2, 32, 8);
  Mirrored keys(context, 9, 16, 9), values(context, 9, 16, 10);
  BothPrograms programs(context);
  programs.add("add", {&added, &hidden});
  programs.add("rmsNorm", {&hidden, &weight, &added}, {1e-5});
  programs.add("rope", {&q, &angles}, {8});
  programs.add("rope", {&k, &angles}, {8});
  programs.add("cacheAppend", {&k, &keys});
  programs.add("cacheAppend", {&v, &values});
  programs.add("attention", {&q, &keys, &values, &y}, {4, 2, 8, 0});
  // What the launch before writes is not read or overwritten in it.
  programs.add("cacheAppend", {&v, &keys});
  programs.add("rope", {&q, &angles}, {8});
  programs.add("rope", {&q, &angles}, {8});
  programs.add("add", {&y, &q});
  programs.add("rmsNorm", {&hidden, &weight, &y}, {1e-5});  // of another sum
  CHECK(programs.there.launches() == 8);
  for (int64_t position : {0, 5, 7}) programs.run(position);
  for (Mirrored* operand : {&hidden, &added, &q, &k, &y, &keys, &values}) {
    const std::vector<double> answer(operand->numbers.begin(), operand->numbers.end());
    CHECK_LE(nmse(operand->downloaded().data(), answer.data(), answer.size()), 1e-11);
  }
  CHECK(programs.there.run({8}, nullptr).code == Code::kOption);  // no room for two rows
}

LUTRA_TEST(cuda_step, programs_give_everything_back) {
  if (no_device()) return;
  LutraCudaFacts before = {}, after = {};
  before.bytes = after.bytes = sizeof before;
  const auto round = [] {
    const auto context = open_context();
    Mirrored q(context, 1, 8, 1), keys(context, 40, 8, 2), values(context, 40, 8, 3), y(context, 1, 8, 4);
    BothPrograms programs(context);
    programs.add("cacheAppend", {&q, &keys});
    programs.add("attention", {&q, &keys, &values, &y}, {1, 1, 8, 0});
    programs.run(3);
  };
  round();
  table()->probe(0, &before);
  for (int i = 0; i < (quick() ? 20 : 1000); ++i) round();
  table()->probe(0, &after);
  CHECK(after.free_bytes + (uint64_t{64} << 20) >= before.free_bytes);
  if (std::strcmp(before.built_for, "host") == 0) CHECK(after.free_bytes == before.free_bytes);
}

LUTRA_TEST(cuda_step, a_device_that_failed_says_so_and_its_copies_are_lost) {
  if (no_device()) return;
  const auto fail_next = fail_next_launch();
  if (!fail_next) return;
  float host[2] = {1.0f, 2.0f};
  std::shared_ptr<DeviceBuffer> buffer;
  DeviceCopy copy, none;
  std::shared_ptr<DeviceContext> lost;
  {
    const auto context = open_context();
    lost = context;
    CHECK(none.find(context, &buffer).code == Code::kDevice);
    CHECK(copy.make(context, host, sizeof host, &buffer).ok());
    CHECK(copy.find(context, &buffer).ok());
    Mirrored x(context, 1, 8, 1), y(context, 1, 8, 2);
    BothPrograms programs(context);
    programs.add("add", {&x, &y});
    fail_next(kLaunchFailure);
    const Status status = programs.there.run({0}, nullptr);
    CHECK(status.code == Code::kDevice);
    CHECK(std::string(status.what).find("launch failure") != std::string::npos);
    CHECK(context->failed());
  }
  fail_next(0);
  const auto next = open_context();
  CHECK(next != lost && !next->failed());
  CHECK(copy.make(next, host, sizeof host, &buffer).code == Code::kDevice);
  CHECK(copy.reserve(next, sizeof host, &buffer).code == Code::kDevice);
  CHECK(copy.find(next, &buffer).code == Code::kDevice);
  CHECK(none.reserve(next, sizeof host, &buffer).ok());
  CHECK(buffer->download(0, host, sizeof host).ok());
  CHECK(host[0] == 0.0f && host[1] == 0.0f);
  DeviceBuffer large;
  const Status full = large.allocate(next, size_t{1} << 50);
  CHECK(full.code == Code::kDevice && full.found == LUTRA_CUDA_NO_MEMORY);
}

LUTRA_TEST(cuda_step, what_a_kernel_does_not_take_is_refused_when_it_is_added) {
  if (no_device()) return;
  const auto context = open_context();
  Mirrored q(context, 1, 2048, 1), keys(context, 4, 2048, 2), values(context, 4, 2048, 3), y(context, 1, 2048, 4);
  DeviceProgram program(context);
  const TensorView tensors[] = {q.there, keys.there, values.there, y.there};
  const double one_head[] = {1, 1, 2048, 0};
  const Status status = program.add(op_named("attention"), tensors, {}, one_head, {});
  CHECK(status.code == Code::kDevice);
  CHECK(std::string(status.what).find("head_dim") != std::string::npos);
  CHECK(program.size() == 0 && program.launches() == 0);
  const double two_heads[] = {2, 2, 1024, 0};
  CHECK(program.add(op_named("attention"), tensors, {}, two_heads, {}).ok());
  CHECK(program.run({0}, nullptr).ok());
}
