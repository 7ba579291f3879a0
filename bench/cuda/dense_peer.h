// cuBLAS's product of f16 matrices, opened at run time where it is installed: what dense weights take.
#pragma once

#include <dlfcn.h>

#include "bench_device.h"

namespace lutra::bench {

class DensePeer {
 public:
  DensePeer() {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"})
      if (!library_) library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library_) return;
    const auto create = symbol<int (*)(void**)>("cublasCreate_v2");
    set_stream_ = symbol<SetStream>("cublasSetStream_v2");
    multiply_ = symbol<Multiply>("cublasGemmEx");
    if (!create || !set_stream_ || !multiply_ || create(&handle_) != 0) handle_ = nullptr;
  }
  DensePeer(const DensePeer&) = delete;
  DensePeer& operator=(const DensePeer&) = delete;

  bool present() const { return handle_ != nullptr; }

  // y [tokens, rows] f16 = x [tokens, cols] f16 times w [rows, cols] f16, summed in fp32. A stream of the backend is
  // CUDA's own. False where cuBLAS refuses.
  bool multiply(LutraCudaStream* stream, const void* w, const void* x, void* y, int64_t rows, int64_t cols,
                int64_t tokens) const {
    constexpr int kPlain = 0, kTransposed = 1, kHalf = 2, kSumF32 = 68, kAnyAlgorithm = -1;
    const float one = 1.0f, zero = 0.0f;
    const int m = static_cast<int>(rows), n = static_cast<int>(tokens), k = static_cast<int>(cols);
    return set_stream_(handle_, stream) == 0 && multiply_(handle_, kTransposed, kPlain, m, n, k, &one, w, kHalf, k, x,
                                                          kHalf, k, &zero, y, kHalf, m, kSumF32, kAnyAlgorithm) == 0;
  }

 private:
  using SetStream = int (*)(void*, void*);
  using Multiply = int (*)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int,
                           const void*, void*, int, int, int, int);
  template <typename Function>
  Function symbol(const char* name) const {
    return reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_ = nullptr;
  void* handle_ = nullptr;
  SetStream set_stream_ = nullptr;
  Multiply multiply_ = nullptr;
};

}  // namespace lutra::bench
