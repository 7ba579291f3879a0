// One launch of the decode kernel on the host's machine of fibers, on a problem with a known answer.
#pragma once

#include <string>
#include <vector>

#include "../parity/lut_gemm_cases.h"
#include "cuda/lut_gemm/decode.h"

namespace lutra::test {

struct DecodeRun {
  Dtype x_dtype = Dtype::kF16;
  Dtype y_dtype = Dtype::kF32;
  int parts = 1;
  int slots = 4;     // that the plan reckons with
  int resident = 2;  // blocks that run at a time
  uint64_t seed = 1;
  int splits = 0;  // over the plan's where not zero
};

// Operands of the problem as a device would hold them.
class DecodeOperands {
 public:
  explicit DecodeOperands(const LutCase& problem, Dtype x_dtype);

  LutOperands& logical() { return logical_; }
  const LutCase& problem() const { return problem_; }
  const Guarded<uint32_t>& fragments() const { return fragments_; }
  const Guarded<uint8_t>& x() const { return x_; }
  // One launch on the host's machine: y as f32 [tokens, rows]. What was wrong with it, or nothing.
  std::string run(const DecodeRun& run, std::vector<float>* y);
  // The answer for x as stored.
  std::vector<double> answer() const { return logical_.answer(); }

 private:
  LutCase problem_;
  Dtype x_dtype_;
  LutOperands logical_;
  Guarded<uint32_t> fragments_;
  Guarded<uint8_t> x_;
};

// The share of the expected power that errors may have.
double decode_limit(Dtype x_dtype, int parts);
// Compares the outputs of a run; what is wrong, or nothing.
std::string decode_errors(DecodeOperands& operands, const DecodeRun& run, const std::vector<float>& y);
// `count` outputs of the stored type as fp32.
std::vector<float> stored_floats(const uint8_t* bytes, size_t count, Dtype dtype);

}  // namespace lutra::test
