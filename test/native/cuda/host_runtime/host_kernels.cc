// Every kernel of the backend for the host's runtime: what the .cu files are for nvcc.
#include "cuda/lut_gemm/baselines.h"
#include "cuda/lut_gemm/decode_kernel.h"
#include "cuda/lut_gemm/decode_kernels.h"
#include "cuda/lut_gemm/prefill_activations.h"
#include "cuda/lut_gemm/prefill_kernel.h"
#include "cuda/lut_gemm/prefill_kernels.h"
#include "cuda/step_kernels.h"
#include "host_kernel.h"

namespace lutra::cuda {

namespace {

using test::HostKernel;

template <typename Arguments>
const Arguments& as(const void* arguments) {
  return *static_cast<const Arguments*>(arguments);
}

template <typename Element, int kBits, bool kPlanes, int kColumnTiles>
const void* decode_kernel() {
  static const HostKernel kernel = {sizeof(DecodeArguments), 0, [](const void* arguments, uint8_t* shared) {
                                      DecodeBlock<Element, kBits, kPlanes, kColumnTiles>::run(
                                          as<DecodeArguments>(arguments), shared);
                                    }};
  return &kernel;
}

template <typename Element, int kBits, bool kPlanes>
DecodeKernels decode_instances() {
  return {{decode_kernel<Element, kBits, kPlanes, 1>(), decode_kernel<Element, kBits, kPlanes, 2>(),
           decode_kernel<Element, kBits, kPlanes, 4>()}};
}

template <typename Element, int kBits, bool kPlanes, int kColumns>
const void* prefill_kernel() {
  static const HostKernel kernel = {sizeof(PrefillArguments), 0, [](const void* arguments, uint8_t* shared) {
                                      PrefillBlock<Element, kBits, kPlanes, prefill_column_tiles(kColumns)>::run(
                                          as<PrefillArguments>(arguments), shared);
                                    }};
  return &kernel;
}

template <typename Element, int kBits, bool kPlanes>
PrefillKernels prefill_instances() {
  PrefillKernels kernels = {{prefill_kernel<Element, kBits, kPlanes, 64>(), nullptr}};
  if constexpr (!kPlanes) kernels.by_columns[1] = prefill_kernel<Element, kBits, kPlanes, 128>();
  return kernels;
}

template <typename Element>
PrefillSteps prefill_steps() {
  static const HostKernel lay_out = {sizeof(PrefillArguments), 0, [](const void* arguments, uint8_t*) {
                                       lay_out_activations<Element>(as<PrefillArguments>(arguments));
                                     }};
  static const HostKernel ranks = {sizeof(PrefillArguments), kBranchShared, [](const void* arguments, uint8_t* shared) {
                                     RankBlock<Element>::run(as<PrefillArguments>(arguments), shared);
                                   }};
  return {&lay_out, &ranks};
}

}  // namespace

DecodeKernels decode_f16_uniform2() { return decode_instances<HalfElement, 2, false>(); }
DecodeKernels decode_f16_uniform3() { return decode_instances<HalfElement, 3, false>(); }
DecodeKernels decode_f16_uniform4() { return decode_instances<HalfElement, 4, false>(); }
DecodeKernels decode_f16_planes2() { return decode_instances<HalfElement, 2, true>(); }
DecodeKernels decode_f16_planes3() { return decode_instances<HalfElement, 3, true>(); }
DecodeKernels decode_f16_planes4() { return decode_instances<HalfElement, 4, true>(); }
DecodeKernels decode_bf16_uniform2() { return decode_instances<BFloat16Element, 2, false>(); }
DecodeKernels decode_bf16_uniform3() { return decode_instances<BFloat16Element, 3, false>(); }
DecodeKernels decode_bf16_uniform4() { return decode_instances<BFloat16Element, 4, false>(); }
DecodeKernels decode_bf16_planes2() { return decode_instances<BFloat16Element, 2, true>(); }
DecodeKernels decode_bf16_planes3() { return decode_instances<BFloat16Element, 3, true>(); }
DecodeKernels decode_bf16_planes4() { return decode_instances<BFloat16Element, 4, true>(); }

PrefillKernels prefill_f16_uniform2() { return prefill_instances<HalfElement, 2, false>(); }
PrefillKernels prefill_f16_uniform3() { return prefill_instances<HalfElement, 3, false>(); }
PrefillKernels prefill_f16_uniform4() { return prefill_instances<HalfElement, 4, false>(); }
PrefillKernels prefill_f16_planes2() { return prefill_instances<HalfElement, 2, true>(); }
PrefillKernels prefill_f16_planes3() { return prefill_instances<HalfElement, 3, true>(); }
PrefillKernels prefill_f16_planes4() { return prefill_instances<HalfElement, 4, true>(); }
PrefillKernels prefill_bf16_uniform2() { return prefill_instances<BFloat16Element, 2, false>(); }
PrefillKernels prefill_bf16_uniform3() { return prefill_instances<BFloat16Element, 3, false>(); }
PrefillKernels prefill_bf16_uniform4() { return prefill_instances<BFloat16Element, 4, false>(); }
PrefillKernels prefill_bf16_planes2() { return prefill_instances<BFloat16Element, 2, true>(); }
PrefillKernels prefill_bf16_planes3() { return prefill_instances<BFloat16Element, 3, true>(); }
PrefillKernels prefill_bf16_planes4() { return prefill_instances<BFloat16Element, 4, true>(); }
PrefillSteps prefill_steps_f16() { return prefill_steps<HalfElement>(); }
PrefillSteps prefill_steps_bf16() { return prefill_steps<BFloat16Element>(); }

const void* matrix_vector_kernel() {
  static const HostKernel kernel = {sizeof(MatrixVectorArguments), 0, [](const void* arguments, uint8_t*) {
                                      multiply_row(as<MatrixVectorArguments>(arguments));
                                    }};
  return &kernel;
}
const void* add_kernel() {
  static const HostKernel kernel = {sizeof(AddArguments), 0,
                                    [](const void* arguments, uint8_t*) { add_element(as<AddArguments>(arguments)); }};
  return &kernel;
}
const void* table_kernel() {
  static const HostKernel kernel = {sizeof(TableArguments), kTableShared, [](const void* arguments, uint8_t* shared) {
                                      table_gemv(as<TableArguments>(arguments), shared);
                                    }};
  return &kernel;
}

template <typename Kernel>
const void* step_kernel() {
  static const HostKernel kernel = {sizeof(typename Kernel::Arguments), 0, [](const void* arguments, uint8_t* shared) {
                                      Kernel::run(as<typename Kernel::Arguments>(arguments), shared);
                                    }};
  return &kernel;
}

template const void* step_kernel<ToFragmentsKernel>();
template const void* step_kernel<EmbeddingKernel>();
template const void* step_kernel<RmsNormKernel>();
template const void* step_kernel<RopeKernel>();
template const void* step_kernel<AttentionKernel<1>>();
template const void* step_kernel<AttentionKernel<4>>();
template const void* step_kernel<AttentionKernel<8>>();
template const void* step_kernel<SwigluKernel>();
template const void* step_kernel<ArgMaxKernel>();

}  // namespace lutra::cuda
