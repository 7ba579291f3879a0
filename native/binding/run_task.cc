#include "binding/run_task.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "binding/arguments.h"
#include "binding/environment.h"
#include "binding/failure.h"
#include "binding/tasks.h"
#include "binding/tensor_object.h"

namespace lutra::binding {

Napi::Value run_task(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::span<const TaskRow> table = task_table();
  const TaskRow& row = table[static_cast<size_t>(whole_number(info[0], "task", 0, std::ssize(table) - 1))];
  const Napi::Array list = info[1].IsArray() ? info[1].As<Napi::Array>() : Napi::Array::New(env);
  const std::vector<double> parameters = number_array(info[2], row.name, TaskCall::kMaxParameters);
  if (list.Length() != row.tensors || parameters.size() != row.parameters)
    throw bad_argument(env, "LUTRA_E_OPTION", "wrong number of operands or parameters", row.name);

  TaskCall call{};
  std::vector<std::shared_ptr<Storage>> keep;
  // Not list.Length(): reading an element may run JavaScript that changes the list.
  for (uint32_t i = 0; i < row.tensors; ++i) {
    TensorObject& tensor = TensorObject::from(list.Get(i), row.name);
    keep.push_back(tensor.share(row.name));
    call.tensors[i] = tensor.view(row.name);
  }
  std::copy(parameters.begin(), parameters.end(), call.parameters.begin());

  Job job;
  job.name = row.name;
  job.threads = static_cast<int>(whole_number(info[3], "threads", 0, 4096));
  job.cancel = cancel_token(info[4]);
  job.answers = true;
  job.work = [run = row.run, call, keep = std::move(keep)](Context& context, std::vector<double>& answer) {
    return run(context, call, answer);
  };
  return Environment::of(env).submit(env, std::move(job));
}

}  // namespace lutra::binding
