// Runs tasks as JavaScript does, with any operands and numbers.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "binding/tasks.h"
#include "fuzz/operands.h"
#include "fuzz/watch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lutra;
  using binding::TaskCall;
  using binding::TaskRow;
  static ThreadPool pool(2);
  static fuzz::Watch watch;
  // A file in memory that the two transfers may read and write, and no other.
  static const int file = memfd_create("fuzz", 0);
  fuzz::Input input(data, size);
  const TaskRow& row = binding::task_table()[input.byte() % binding::task_table().size()];
  fuzz::Operands operands(input);
  TaskCall call{};
  for (size_t i = 0; i < row.tensors; ++i) call.tensors[i] = operands.tensor();
  for (size_t i = 0; i < row.parameters; ++i) call.parameters[i] = operands.parameter();
  const bool transfer = std::strcmp(row.name, "readFile") == 0 || std::strcmp(row.name, "writeFile") == 0;
  if (transfer) {
    call.parameters[0] = input.byte() & 7 ? file : -1;
    // Not beyond what the memory of a test machine holds.
    if (call.parameters[1] > 0x1p16) call.parameters[1] = 0x1p16;
    if (ftruncate(file, 128) != 0) return 0;
  }
  CancelToken cancel;
  Context context;
  context.pool = &pool;
  context.cancel = &cancel;
  context.threads = input.byte() % 3;
  std::vector<double> answer;
  watch.over(cancel, [&] { (void)row.run(context, call, answer); });
  return 0;
}
