// The table: contexts and what they hold. Every call checks what the runtime answers, and a context whose device failed
// once answers LUTRA_CUDA_FAILED from then on. What the runtime only refuses is LUTRA_CUDA_ARGUMENT and harms nothing.
#include <cstdio>
#include <cstring>
#include <new>

#include "cuda/context.h"

namespace lutra::cuda {

int32_t refuse(LutraCudaContext& context, const char* why) {
  std::snprintf(context.error, sizeof context.error, "%s", why);
  return LUTRA_CUDA_ARGUMENT;
}

// What the runtime refuses before anything runs, and forgets. Every other error is taken for one that sticks.
static bool is_refusal(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorNotReady:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorNotPermitted:
    case cudaErrorNotSupported:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
      return true;
    default:
      return false;
  }
}

int32_t outcome(LutraCudaContext& context, cudaError_t error, const char* call) {
  if (error == cudaSuccess) return LUTRA_CUDA_OK;
  std::snprintf(context.error, sizeof context.error, "%s: %s", call, cudaGetErrorString(error));
  cudaGetLastError();  // what does not stick is told once
  if (error == cudaErrorMemoryAllocation) return LUTRA_CUDA_NO_MEMORY;
  if (is_refusal(error)) return LUTRA_CUDA_ARGUMENT;
  return context.failed = LUTRA_CUDA_FAILED;
}

namespace {

template <typename Handle>
int32_t remember(LutraCudaContext& context, std::unordered_set<Handle>& list, Handle handle) {
  try {
    list.insert(handle);
    return LUTRA_CUDA_OK;
  } catch (const std::bad_alloc&) {
    std::snprintf(context.error, sizeof context.error, "no memory for a handle");
    return LUTRA_CUDA_NO_MEMORY;
  }
}

// Calls of a context go to its device, whatever device the thread used before.
template <typename Work>
int32_t on_device(LutraCudaContext* context, Work&& work) {
  if (!context) return LUTRA_CUDA_ARGUMENT;
  if (context->failed) return context->failed;
  const int32_t device = outcome(*context, cudaSetDevice(context->device), "cudaSetDevice");
  return device == LUTRA_CUDA_OK ? work(*context) : device;
}

void destroy_context(LutraCudaContext* context) {
  if (!context) return;
  cudaSetDevice(context->device);
  cudaDeviceSynchronize();
  for (cudaGraphExec_t graph : context->graphs) cudaGraphExecDestroy(graph);
  for (cudaEvent_t event : context->events) cudaEventDestroy(event);
  for (cudaStream_t stream : context->streams) cudaStreamDestroy(stream);
  for (void* memory : context->memory) cudaFree(memory);
  if (context->first_stream) cudaStreamDestroy(context->first_stream);
  cudaGetLastError();
  delete context;
}

int32_t create_context(int32_t device, LutraCudaContext** result) {
  *result = nullptr;
  LutraCudaFacts facts;
  facts.bytes = sizeof facts;
  probe(device, &facts);
  if (facts.state != LUTRA_CUDA_OK) return facts.state;
  LutraCudaContext* const context = new (std::nothrow) LutraCudaContext;
  if (!context) return LUTRA_CUDA_NO_MEMORY;
  context->device = device;
  context->slots = 2 * facts.multiprocessors;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(&context->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&context->first_stream, cudaStreamNonBlocking);
  if (error == cudaSuccess) {
    *result = context;
    return LUTRA_CUDA_OK;
  }
  destroy_context(context);
  return state_of(error);
}

const char* last_error(LutraCudaContext* context) { return context ? context->error : "there is no context"; }

int32_t allocate(LutraCudaContext* c, uint64_t bytes, void** memory) {
  return on_device(c, [&](LutraCudaContext& context) {
    *memory = nullptr;
    const int32_t made = outcome(context, cudaMalloc(memory, bytes ? bytes : 1), "cudaMalloc");
    if (made != LUTRA_CUDA_OK) return made;
    const int32_t kept = remember(context, context.memory, *memory);
    if (kept != LUTRA_CUDA_OK) cudaFree(*memory);
    return kept;
  });
}

int32_t release(LutraCudaContext* c, void* memory) {
  return on_device(c, [&](LutraCudaContext& context) {
    if (!context.memory.erase(memory)) return refuse(context, "the memory is not of this context");
    return outcome(context, cudaFree(memory), "cudaFree");
  });
}

template <cudaMemcpyKind kKind>
int32_t move_bytes(LutraCudaContext* c, LutraCudaStream* stream, void* to, const void* from, uint64_t bytes) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaMemcpyAsync(to, from, bytes, kKind, stream_of(context, stream)), "cudaMemcpyAsync");
  });
}

int32_t clear(LutraCudaContext* c, LutraCudaStream* stream, void* memory, uint64_t bytes) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaMemsetAsync(memory, 0, bytes, stream_of(context, stream)), "cudaMemsetAsync");
  });
}

int32_t create_stream(LutraCudaContext* c, LutraCudaStream** result) {
  return on_device(c, [&](LutraCudaContext& context) {
    cudaStream_t stream = nullptr;
    *result = nullptr;
    int32_t made = outcome(context, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    if (made == LUTRA_CUDA_OK) made = remember(context, context.streams, stream);
    if (made == LUTRA_CUDA_OK) *result = reinterpret_cast<LutraCudaStream*>(stream);
    return made;
  });
}

int32_t destroy_stream(LutraCudaContext* c, LutraCudaStream* stream) {
  return on_device(c, [&](LutraCudaContext& context) {
    const cudaStream_t handle = reinterpret_cast<cudaStream_t>(stream);
    if (!context.streams.erase(handle)) return refuse(context, "the stream is not of this context");
    return outcome(context, cudaStreamDestroy(handle), "cudaStreamDestroy");
  });
}

int32_t synchronize(LutraCudaContext* c, LutraCudaStream* stream) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaStreamSynchronize(stream_of(context, stream)), "cudaStreamSynchronize");
  });
}

int32_t create_event(LutraCudaContext* c, LutraCudaEvent** result) {
  return on_device(c, [&](LutraCudaContext& context) {
    cudaEvent_t event = nullptr;
    *result = nullptr;
    int32_t made = outcome(context, cudaEventCreate(&event), "cudaEventCreate");
    if (made == LUTRA_CUDA_OK) made = remember(context, context.events, event);
    if (made == LUTRA_CUDA_OK) *result = reinterpret_cast<LutraCudaEvent*>(event);
    return made;
  });
}

int32_t destroy_event(LutraCudaContext* c, LutraCudaEvent* event) {
  return on_device(c, [&](LutraCudaContext& context) {
    const cudaEvent_t handle = reinterpret_cast<cudaEvent_t>(event);
    if (!context.events.erase(handle)) return refuse(context, "the event is not of this context");
    return outcome(context, cudaEventDestroy(handle), "cudaEventDestroy");
  });
}

int32_t record(LutraCudaContext* c, LutraCudaStream* stream, LutraCudaEvent* event) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaEventRecord(reinterpret_cast<cudaEvent_t>(event), stream_of(context, stream)),
                   "cudaEventRecord");
  });
}

int32_t wait(LutraCudaContext* c, LutraCudaStream* stream, LutraCudaEvent* event) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaStreamWaitEvent(stream_of(context, stream), reinterpret_cast<cudaEvent_t>(event), 0),
                   "cudaStreamWaitEvent");
  });
}

int32_t elapsed(LutraCudaContext* c, LutraCudaEvent* from, LutraCudaEvent* to, float* milliseconds) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(
        context,
        cudaEventElapsedTime(milliseconds, reinterpret_cast<cudaEvent_t>(from), reinterpret_cast<cudaEvent_t>(to)),
        "cudaEventElapsedTime");
  });
}

int32_t begin_capture(LutraCudaContext* c, LutraCudaStream* stream) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaStreamBeginCapture(stream_of(context, stream), cudaStreamCaptureModeThreadLocal),
                   "cudaStreamBeginCapture");
  });
}

// Ends the capture of a failed context, too: the thread would stay in it, and could neither allocate nor free anywhere.
int32_t end_capture(LutraCudaContext* c, LutraCudaStream* stream, LutraCudaGraph** result) {
  *result = nullptr;
  if (c && c->failed) {
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(stream_of(*c, stream), &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    return c->failed;
  }
  return on_device(c, [&](LutraCudaContext& context) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    int32_t made = outcome(context, cudaStreamEndCapture(stream_of(context, stream), &graph), "cudaStreamEndCapture");
    if (made == LUTRA_CUDA_OK)
      made = outcome(context, cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
    if (graph) cudaGraphDestroy(graph);
    if (made == LUTRA_CUDA_OK) made = remember(context, context.graphs, executable);
    if (made == LUTRA_CUDA_OK) *result = reinterpret_cast<LutraCudaGraph*>(executable);
    return made;
  });
}

int32_t replay(LutraCudaContext* c, LutraCudaStream* stream, LutraCudaGraph* graph) {
  return on_device(c, [&](LutraCudaContext& context) {
    return outcome(context, cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), stream_of(context, stream)),
                   "cudaGraphLaunch");
  });
}

int32_t destroy_graph(LutraCudaContext* c, LutraCudaGraph* graph) {
  return on_device(c, [&](LutraCudaContext& context) {
    const cudaGraphExec_t handle = reinterpret_cast<cudaGraphExec_t>(graph);
    if (!context.graphs.erase(handle)) return refuse(context, "the graph is not of this context");
    return outcome(context, cudaGraphExecDestroy(handle), "cudaGraphExecDestroy");
  });
}

int32_t checked_workspace(LutraCudaContext* c, int32_t op, const void* arguments, uint64_t* bytes) {
  return on_device(c, [&](LutraCudaContext& context) { return workspace(&context, op, arguments, bytes); });
}

int32_t checked_launch(LutraCudaContext* c, LutraCudaStream* stream, int32_t op, const void* arguments) {
  return on_device(c, [&](LutraCudaContext& context) { return launch(&context, stream, op, arguments); });
}

constexpr LutraCudaTable kTable = {
    LUTRA_CUDA_ABI_VERSION,
    sizeof(LutraCudaTable),
    probe,
    create_context,
    destroy_context,
    last_error,
    allocate,
    release,
    move_bytes<cudaMemcpyHostToDevice>,
    move_bytes<cudaMemcpyDeviceToHost>,
    move_bytes<cudaMemcpyDeviceToDevice>,
    clear,
    create_stream,
    destroy_stream,
    synchronize,
    create_event,
    destroy_event,
    record,
    wait,
    elapsed,
    checked_workspace,
    checked_launch,
    begin_capture,
    end_capture,
    replay,
    destroy_graph,
};

}  // namespace

}  // namespace lutra::cuda

extern "C" __attribute__((visibility("default"))) const LutraCudaTable* lutra_cuda_open(uint32_t version) {
  return version == LUTRA_CUDA_ABI_VERSION ? &lutra::cuda::kTable : nullptr;
}
