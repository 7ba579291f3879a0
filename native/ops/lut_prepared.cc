#include "ops/lut_prepared.h"

#include <algorithm>

#include "ops/lut_activations.h"
#include "ops/operand.h"

namespace lutra {

Status LutPrepared::prepare(Context& context, std::vector<PackedView> weights, const TensorView& x,
                            LutOptions options) {
  ready_ = false;
  if (weights.empty()) return error(Code::kOption, "a product needs weights");
  const LutGemmKernels& kernels = lut_gemm_kernels(weights[0].layout.bits);
  LUTRA_TRY(check_activations(kernels, weights, x, options));
  weights_ = std::move(weights);
  options_ = options;
  tokens_ = x.rows();
  ready_ = tokens_ == 0;
  if (ready_) return ok_status();

  const LutActivations activations(kernels, weights_, tokens_, options);
  const int64_t bytes = activations.bytes() * ceil_div(tokens_, activations.batch());
  if (static_cast<int64_t>(memory_.bytes()) < bytes) memory_ = AlignedBuffer(static_cast<size_t>(bytes));
  if (!memory_) return out_of_memory(bytes);
  for (int64_t token = 0; token < tokens_; token += activations.batch())
    if (!activations.build(context, x.as<const float>() + token * x.cols(),
                           std::min(activations.batch(), tokens_ - token),
                           memory_.as<uint8_t>() + token / activations.batch() * activations.bytes()))
      return finished(false);
  ready_ = true;
  return ok_status();
}

Status LutPrepared::multiply(Context& context, size_t weight, const TensorView& y) const {
  if (!ready_ || weight >= weights_.size()) return error(Code::kOption, "nothing is prepared for this weight");
  LUTRA_TRY(check_result(weights_[weight], tokens_, y));
  if (tokens_ == 0) return ok_status();
  const LutActivations activations(lut_gemm_kernels(weights_[0].layout.bits), weights_, tokens_, options_);
  const size_t bytes = activations.lane_bytes(context);
  auto* lanes = static_cast<uint8_t*>(context.scratch(bytes));
  if (!lanes && bytes > 0) return out_of_memory(static_cast<int64_t>(bytes));
  for (int64_t token = 0; token < tokens_; token += activations.batch())
    if (!activations.multiply(context, memory_.as<uint8_t>() + token / activations.batch() * activations.bytes(),
                              weight, {&y, 1}, token, std::min(activations.batch(), tokens_ - token), lanes))
      return finished(false);
  return ok_status();
}

}  // namespace lutra
