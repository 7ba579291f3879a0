// Kernels of the operators of a model step besides products with packed weights: a class with `Arguments`, `kThreads`
// and `run` each, and the pointer by which the runtime launches it.
#pragma once

#include "cuda/activation/swiglu_kernel.h"
#include "cuda/arg_max/arg_max_kernel.h"
#include "cuda/attention/attention_kernel.h"
#include "cuda/embedding/embedding_kernel.h"
#include "cuda/lut_gemm/to_fragments_kernel.h"
#include "cuda/norm/rms_norm_kernel.h"
#include "cuda/rope/rope_kernel.h"

namespace lutra::cuda {

template <typename Kernel>
const void* step_kernel();

extern template const void* step_kernel<ToFragmentsKernel>();
extern template const void* step_kernel<EmbeddingKernel>();
extern template const void* step_kernel<RmsNormKernel>();
extern template const void* step_kernel<RopeKernel>();
extern template const void* step_kernel<AttentionKernel<1>>();
extern template const void* step_kernel<AttentionKernel<4>>();
extern template const void* step_kernel<AttentionKernel<8>>();
extern template const void* step_kernel<SwigluKernel>();
extern template const void* step_kernel<ArgMaxKernel>();

}  // namespace lutra::cuda
