// What the table's handles stand for. Everything that a context made is on its lists until it is given back, and goes
// with the context at the latest.
#pragma once

#include <cuda_runtime_api.h>

#include <unordered_set>

#include "cuda/abi.h"

struct LutraCudaContext {
  int device = 0;
  int slots = 0;         // blocks of a decode kernel that the device holds at once
  int shared_bytes = 0;  // that a block may have
  int32_t failed = 0;    // LUTRA_CUDA_FAILED from the first error that sticks on
  char error[200] = "";
  cudaStream_t first_stream = nullptr;
  std::unordered_set<void*> memory;
  std::unordered_set<cudaStream_t> streams;
  std::unordered_set<cudaEvent_t> events;
  std::unordered_set<cudaGraphExec_t> graphs;
};

namespace lutra::cuda {

// The result of a runtime call, remembered with its name where it failed.
int32_t outcome(LutraCudaContext& context, cudaError_t error, const char* call);
int32_t refuse(LutraCudaContext& context, const char* why);
// A state for what kept a device from being used.
int32_t state_of(cudaError_t error);
void probe(int32_t device, LutraCudaFacts* facts);

int32_t workspace(LutraCudaContext* context, int32_t op, const void* arguments, uint64_t* bytes);
int32_t launch(LutraCudaContext* context, LutraCudaStream* stream, int32_t op, const void* arguments);

inline cudaStream_t stream_of(const LutraCudaContext& context, LutraCudaStream* stream) {
  return stream ? reinterpret_cast<cudaStream_t>(stream) : context.first_stream;
}

}  // namespace lutra::cuda
