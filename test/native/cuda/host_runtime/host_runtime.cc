#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "cuda/simt/host_simt.h"
#include "cuda_runtime_api.h"
#include "host_kernel.h"

using Work = std::function<cudaError_t()>;

struct CUstream_st {
  std::vector<Work>* captured = nullptr;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point at;
};
struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};

namespace {

constexpr size_t kMemory = size_t{1} << 30;
constexpr int kResident = 3;                  // blocks that run at a time
constexpr size_t kSharedAtFirst = 48 * 1024;  // of a block, before more is asked for
constexpr int kSharedAtMost = 99 * 1024;

std::mutex mutex;
std::map<const char*, size_t> allocations;
std::map<const void*, size_t> shared_limits;  // of kernels for which more was asked
size_t allocated = 0;
uint64_t launches = 0;
cudaError_t stuck = cudaSuccess;    // a device that failed stays so
cudaError_t planned = cudaSuccess;  // of the next launch
thread_local int capturing = 0;     // streams that this thread captures: memory is neither made nor freed meanwhile

// Whether all of these bytes lie in one allocation: where host and device memory are mixed up, they do not.
bool on_device(const void* memory, size_t bytes) {
  const std::lock_guard lock(mutex);
  const char* const first = static_cast<const char*>(memory);
  auto after = allocations.upper_bound(first);
  if (after == allocations.begin()) return false;
  --after;
  return first + bytes <= after->first + after->second;
}

// Done now, or kept where the stream is being captured.
cudaError_t enqueue(cudaStream_t stream, Work work) {
  if (stuck != cudaSuccess) return stuck;
  if (!stream->captured) return work();
  stream->captured->push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t run_kernel(const lutra::test::HostKernel& kernel, lutra::cuda::HostLaunch launch,
                       const std::vector<uint64_t>& arguments) {
  {
    const std::lock_guard lock(mutex);
    launch.seed = ++launches;
  }
  const std::string wrong =
      lutra::cuda::run_grid(launch, [&](uint8_t* shared) { kernel.run(arguments.data(), shared); });
  if (wrong.empty()) return cudaSuccess;
  std::fprintf(stderr, "host device: %s\n", wrong.c_str());
  return stuck = cudaErrorLaunchFailure;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorLaunchFailure:
      return "launch failure";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorLaunchOutOfResources:
      return "too many resources requested for launch";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    default:
      return error == cudaSuccess ? "no error" : "invalid argument";
  }
}
cudaError_t cudaGetLastError() { return stuck; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::snprintf(properties->name, sizeof properties->name, "host machine of fibers");
  properties->major = 9;
  properties->minor = 0;
  properties->multiProcessorCount = 2;
  properties->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = kSharedAtMost, cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value > kSharedAtMost) return cudaErrorInvalidValue;
  const std::lock_guard lock(mutex);
  shared_limits[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? stuck : cudaErrorInvalidDevice; }
cudaError_t cudaDeviceSynchronize() { return stuck; }

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const std::lock_guard lock(mutex);
  *total_bytes = kMemory;
  *free_bytes = kMemory - allocated;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (stuck != cudaSuccess) return stuck;
  if (capturing > 0) return cudaErrorStreamCaptureUnsupported;
  const std::lock_guard lock(mutex);
  const size_t rounded = (bytes + 255) / 256 * 256;
  if (rounded > kMemory - allocated) return cudaErrorMemoryAllocation;
  char* const made = static_cast<char*>(std::aligned_alloc(256, rounded));
  if (!made) return cudaErrorMemoryAllocation;
  std::memset(made, 0xff, rounded);  // NaN until written
  allocations[made] = bytes;
  allocated += rounded;
  *memory = made;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (capturing > 0) return cudaErrorStreamCaptureUnsupported;
  const std::lock_guard lock(mutex);
  const auto found = allocations.find(static_cast<char*>(memory));
  if (found == allocations.end()) return cudaErrorInvalidValue;
  allocated -= (found->second + 255) / 256 * 256;
  allocations.erase(found);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (on_device(to, bytes) != (kind != cudaMemcpyDeviceToHost)) return cudaErrorInvalidValue;
  if (on_device(from, bytes) != (kind != cudaMemcpyHostToDevice)) return cudaErrorInvalidValue;
  return enqueue(stream, [=] { return std::memcpy(to, from, bytes), cudaSuccess; });
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (!on_device(memory, bytes)) return cudaErrorInvalidValue;
  return enqueue(stream, [=] { return std::memset(memory, value, bytes), cudaSuccess; });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = new CUstream_st, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream->captured;
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream->captured ? cudaErrorStreamCaptureUnsupported : stuck;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  return event->at = std::chrono::steady_clock::now(), cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count(), cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stuck != cudaSuccess) return stuck;
  if (stream->captured) return cudaErrorInvalidValue;
  ++capturing;
  return stream->captured = new std::vector<Work>, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->captured) return cudaErrorInvalidValue;
  *graph = new CUgraph_st{std::move(*stream->captured)};
  delete stream->captured;
  stream->captured = nullptr;
  --capturing;
  return stuck;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new CUgraphExec_st{graph->work}, cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return delete executable, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return enqueue(stream, [executable] {
    for (const Work& work : executable->work)
      if (const cudaError_t error = work(); error != cudaSuccess) return error;
    return cudaSuccess;
  });
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                             cudaStream_t stream) {
  const auto& known = *static_cast<const lutra::test::HostKernel*>(kernel);
  {
    const std::lock_guard lock(mutex);
    if (planned != cudaSuccess) {
      if (planned == cudaErrorLaunchFailure) stuck = planned;
      return std::exchange(planned, cudaSuccess);
    }
    const auto limit = shared_limits.find(kernel);
    if (shared_bytes > (limit == shared_limits.end() ? kSharedAtFirst : limit->second)) return cudaErrorInvalidValue;
  }
  std::vector<uint64_t> copy((known.argument_bytes + 7) / 8);
  std::memcpy(copy.data(), arguments[0], known.argument_bytes);
  lutra::cuda::HostLaunch launch;
  launch.blocks = static_cast<int>(blocks.x);
  launch.threads = static_cast<int>(threads.x);
  launch.resident = kResident;
  launch.shared_bytes = shared_bytes + known.shared_bytes;
  return enqueue(stream, [&known, launch, copy = std::move(copy)] { return run_kernel(known, launch, copy); });
}

extern "C" __attribute__((visibility("default"))) void lutra_host_runtime_fail(int error) {
  const std::lock_guard lock(mutex);
  planned = static_cast<cudaError_t>(error);
  if (error == cudaSuccess) stuck = cudaSuccess;
}
