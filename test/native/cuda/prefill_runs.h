// The launches of a prefill product on the host's machine of fibers.
#pragma once

#include "cuda/lut_gemm/prefill.h"
#include "decode_runs.h"

namespace lutra::test {

// `slots` are multiprocessors here.
struct PrefillRun : DecodeRun {
  int block_columns = 0;  // over the plan's where not zero, as stages
  int stages = 0;
};

// y as f32 [tokens, rows]. What was wrong with a launch, or nothing.
std::string run_prefill(DecodeOperands& operands, const PrefillRun& run, std::vector<float>* y);

}  // namespace lutra::test
