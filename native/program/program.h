// A model step as a recorded list of operators, replayed without JavaScript between them.
//
// Operands are fixed addresses that the program keeps alive. What changes from run to run is the content of the
// operands and the step scalars, which an operator reads when it executes. No operator answers with data.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor_view.h"
#include "ops/context.h"
#include "packing/layout.h"

namespace lutra {

struct StepScalars {
  int64_t position = 0;  // of the step's first token in its sequence
};

// One recorded operator: `op` indexes the table of op_table.h.
struct Step {
  static constexpr int kMaxTensors = 9;
  static constexpr int kMaxPacked = 8;
  static constexpr int kMaxParameters = 8;

  int op = 0;
  TensorView tensors[kMaxTensors];
  std::vector<PackedView> packed;
  double parameters[kMaxParameters] = {};
};

class Program {
 public:
  // `keep` holds whatever owns the operands' memory. Refuses an unknown operator and a wrong number of operands;
  // shapes are checked by the operator itself when it runs.
  Status add(int op, std::span<const TensorView> tensors, std::span<const PackedView> packed,
             std::span<const double> parameters, std::vector<std::shared_ptr<void>> keep);

  // Runs every step in order and stops at the first that fails; `*failed` is then its index.
  Status run(Context& context, const StepScalars& scalars, size_t* failed) const;

  size_t size() const { return steps_.size(); }
  const char* name_of(size_t step) const;

 private:
  std::vector<Step> steps_;
  std::vector<std::shared_ptr<void>> keep_;
};

}  // namespace lutra
