#include "program/program.h"

#include <algorithm>
#include <iterator>

#include "program/op_table.h"

namespace lutra {

Status Program::add(int op, std::span<const TensorView> tensors, std::span<const PackedView> packed,
                    std::span<const double> parameters, std::vector<std::shared_ptr<void>> keep) {
  const std::span<const OpRow> table = op_table();
  if (op < 0 || op >= static_cast<int>(table.size())) return error(Code::kOption, "no such operator", op);
  const OpRow& row = table[static_cast<size_t>(op)];
  const int matrices = static_cast<int>(packed.size());
  const bool several = row.packed == OpRow::kOneOrMore;
  if (several ? matrices < 1 || matrices > Step::kMaxPacked : matrices != row.packed)
    return error(Code::kOption, "wrong number of packed weights", matrices, several ? 1 : row.packed);
  const int wanted = row.tensors + (several ? matrices : 0);
  if (static_cast<int>(tensors.size()) != wanted)
    return error(Code::kOption, "wrong number of operands", static_cast<int64_t>(tensors.size()), wanted);
  if (static_cast<int>(parameters.size()) != row.parameters)
    return error(Code::kOption, "wrong number of parameters", static_cast<int64_t>(parameters.size()), row.parameters);

  Step step;
  step.op = op;
  std::copy(tensors.begin(), tensors.end(), step.tensors);
  std::copy(parameters.begin(), parameters.end(), step.parameters);
  step.packed.assign(packed.begin(), packed.end());
  steps_.push_back(std::move(step));
  std::move(keep.begin(), keep.end(), std::back_inserter(keep_));
  return ok_status();
}

Status Program::run(Context& context, const StepScalars& scalars, size_t* failed) const {
  const std::span<const OpRow> table = op_table();
  for (size_t i = 0; i < steps_.size(); ++i) {
    *failed = i;
    if (context.cancel && context.cancel->cancelled()) return error(Code::kCancelled, "cancelled");
    LUTRA_TRY(table[static_cast<size_t>(steps_[i].op)].run(context, steps_[i], scalars));
  }
  return ok_status();
}

const char* Program::name_of(size_t step) const {
  return step < steps_.size() ? op_table()[static_cast<size_t>(steps_[step].op)].name : "";
}

}  // namespace lutra
