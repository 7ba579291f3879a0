// Records operators as JavaScript does, any numbers and operands, and runs them.
#include "fuzz/operands.h"
#include "fuzz/watch.h"
#include "program/op_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lutra;
  static ThreadPool pool(2);
  static fuzz::Watch watch;
  fuzz::Input input(data, size);
  const size_t op = input.byte() % (op_table().size() + 1);
  const bool known = op < op_table().size();
  const OpRow row = known ? op_table()[op] : OpRow{"none", 1, 1, 0, nullptr};
  const int matrices = row.packed == OpRow::kOneOrMore ? 1 + input.byte() % 3 : row.packed;
  const int extra = row.packed == OpRow::kOneOrMore ? matrices : 0;
  fuzz::Operands operands(input);
  std::vector<PackedView> packed;
  for (int i = 0; i < matrices; ++i) packed.push_back(operands.packed());
  std::vector<TensorView> tensors;
  for (int i = 0; i < row.tensors + extra; ++i) tensors.push_back(operands.tensor());
  std::vector<double> parameters;
  for (int i = 0; i < row.parameters; ++i) parameters.push_back(operands.parameter());
  // Now and then a wrong number of something.
  const uint8_t wrong = input.byte();
  if (wrong == 1) tensors.pop_back();
  if (wrong == 2) parameters.push_back(1);
  if (wrong == 3) packed.push_back(operands.packed());

  Program program;
  const Status added = program.add(static_cast<int>(op), tensors, packed, parameters, {});
  if (!known && added.ok()) __builtin_trap();
  if (!added.ok()) return 0;
  CancelToken cancel;
  Context context;
  context.pool = &pool;
  context.cancel = &cancel;
  context.threads = input.byte() % 3;
  size_t failed = 0;
  watch.over(cancel, [&] { (void)program.run(context, {operands.position()}, &failed); });
  return 0;
}
