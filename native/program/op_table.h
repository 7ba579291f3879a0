// The operators a program can hold. A row's index is its number in lib/native/addon.ts (opIds).
#pragma once

#include <span>

#include "program/program.h"

namespace lutra {

struct OpRow {
  static constexpr int kOneOrMore = -1;

  const char* name;
  int tensors;
  int parameters;
  int packed;  // matrices, or kOneOrMore, each with a tensor besides `tensors` for its result
  Status (*run)(Context& context, const Step& step, const StepScalars& scalars);
};

std::span<const OpRow> op_table();

}  // namespace lutra
