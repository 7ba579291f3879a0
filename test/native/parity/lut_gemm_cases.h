// One lut_gemm problem with its answer, computed from the logical codes and values and never from the packed ones.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../harness.h"
#include "ops/lut_gemm_with.h"

namespace lutra::test {

struct LutCase {
  PackedLayout layout;
  int64_t tokens = 1;
  Distribution distribution = Distribution::kNormal;
  uint64_t seed = 1;
  size_t slack = 0;  // floats between the end of x and y and their guard pages
  int64_t rank = 0;  // of a sub-branch of this type
  Dtype sub_branch = Dtype::kF16;
  // Codes, scales and offsets of normal weights rounded to nearest, so that offsets follow the codes; random ones
  // otherwise. Not without offsets.
  bool nearest = false;

  std::string describe() const;
};

PackedLayout make_layout(int64_t rows, int64_t cols, int64_t group_size, int bits, WeightKind kind, OffsetKind offset,
                         Dtype dtype);

// Operands between guard pages. Scales, alphas and offsets are values that their storage type holds.
class LutOperands {
 public:
  explicit LutOperands(const LutCase& problem);

  PackedView view() const;
  TensorView x() const;
  TensorView y() const;
  void poison_y();
  float* x_data() { return x_.data(); }
  const float* y_data() const { return y_.data(); }
  uint32_t* words() { return words_.data(); }
  const std::vector<uint8_t>& codes() const { return codes_; }

  double weight(int64_t row, int64_t col) const;
  double sub_branch_weight(int64_t row, int64_t col) const;
  // y in fp64 [tokens, rows], from x as it is now.
  std::vector<double> answer() const;
  // What sum y^2 would be on average if every bit of every code and every sign of x were a fair coin.
  double expected_power() const;

 private:
  double packed_weight(int64_t row, int64_t col) const;
  double stored_scale(int64_t row, int64_t group, int plane) const;
  double coin_power(int64_t row, int64_t group) const;
  void make_values(std::mt19937_64& random, std::vector<uint8_t>& scales, std::vector<uint8_t>& offsets);
  void make_nearest(std::mt19937_64& random, std::vector<uint8_t>& scales, std::vector<uint8_t>& offsets);
  void make_sub_branch(std::mt19937_64& random);

  LutCase problem_;
  std::vector<uint8_t> codes_;   // [rows, cols]
  std::vector<double> scales_;   // [rows, groups, scale planes]
  std::vector<double> offsets_;  // [rows, groups]: zero codes or offsets
  std::vector<double> pair_;     // [rows, cols]: B A, empty without a sub-branch
  Guarded<uint32_t> words_;
  Guarded<uint8_t> scale_bytes_;  // tile order
  Guarded<uint8_t> offset_bytes_;
  Guarded<uint8_t> a_bytes_;
  Guarded<uint8_t> b_bytes_;
  Guarded<float> a_scales_;
  Guarded<float> b_scales_;
  Guarded<float> x_;
  Guarded<float> y_;
};

double mode_limit(Mode mode);
const char* mode_name(Mode mode);
Context one_lane();

// Runs the kernels on the problem and returns what is wrong, or nothing: outputs all written and finite, inside the
// error bound element by element, and the mode's share of the expected power.
std::string lut_parity(const LutGemmKernels& kernels, const LutCase& problem, LutOperands& operands, Mode mode);

}  // namespace lutra::test
