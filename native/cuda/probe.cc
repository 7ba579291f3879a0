// What a device is, and what keeps it from being used.
#include <cstdio>
#include <cstring>

#include "cuda/context.h"
#include "cuda/lut_gemm/baselines.h"

namespace lutra::cuda {

int32_t state_of(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return LUTRA_CUDA_OK;
    case cudaErrorInsufficientDriver: {
      // The runtime says the same where no driver is: its version tells them apart.
      int version = 0;
      return cudaDriverGetVersion(&version) == cudaSuccess && version > 0 ? LUTRA_CUDA_DRIVER_TOO_OLD
                                                                          : LUTRA_CUDA_NO_DRIVER;
    }
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
      return LUTRA_CUDA_NO_DEVICE;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return LUTRA_CUDA_NO_ARCHITECTURE;
    case cudaErrorMemoryAllocation:
      return LUTRA_CUDA_NO_MEMORY;
    default:
      return LUTRA_CUDA_FAILED;
  }
}

namespace {

cudaError_t look_at_device(int32_t device, LutraCudaFacts& facts) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return error;
  facts.devices = count;
  if (device < 0 || device >= count) return cudaErrorInvalidDevice;
  cudaDeviceProp properties;
  error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  std::snprintf(facts.name, sizeof facts.name, "%.95s", properties.name);
  facts.compute_capability = properties.major * 10 + properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.l2_bytes = properties.l2CacheSize;
  error = cudaSetDevice(device);
  if (error != cudaSuccess) return error;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) return error;
  facts.free_bytes = free_bytes;
  facts.memory_bytes = total_bytes;
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, add_kernel());
}

}  // namespace

void probe(int32_t device, LutraCudaFacts* result) {
  if (!result || result->bytes != sizeof(LutraCudaFacts)) return;
  LutraCudaFacts& facts = *result;
  std::memset(&facts, 0, sizeof facts);
  facts.bytes = sizeof facts;
  std::snprintf(facts.built_for, sizeof facts.built_for, "%s", LUTRA_CUDA_BUILT_FOR);
  cudaDriverGetVersion(&facts.driver_version);
  cudaRuntimeGetVersion(&facts.runtime_version);
  const cudaError_t error = look_at_device(device, facts);
  facts.state = state_of(error);
  if (error != cudaSuccess) std::snprintf(facts.detail, sizeof facts.detail, "%s", cudaGetErrorString(error));
  cudaGetLastError();
}

}  // namespace lutra::cuda
