// The few words that kernels are written in. nvcc reads them as instructions; a plain compiler reads them as calls into
// a small machine of fibers, on which tests run the very same templates (host_simt.h).
//
// Registers of the matrix unit are u32 with two 16-bit numbers each, the even column in the low half. For
// m16n8k16 (PTX ISA, "Matrix fragments for mma.m16n8k16"), with g = lane / 4 and t = lane % 4:
//   a[0] row g,     columns 2t, 2t+1      a[1] row g + 8, columns 2t, 2t+1
//   a[2] row g,     columns 2t+8, 2t+9    a[3] row g + 8, columns 2t+8, 2t+9
//   b[0] rows 2t, 2t+1, column g          b[1] rows 2t+8, 2t+9, column g
//   c[0], c[1] row g, columns 2t, 2t+1    c[2], c[3] row g + 8, columns 2t, 2t+1
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define LUTRA_DEVICE __device__ __forceinline__
#define LUTRA_DEVICE_CALL static __device__ __noinline__
#define LUTRA_UNROLL _Pragma("unroll")
#define LUTRA_ROLLED _Pragma("unroll 1")
#else
#define LUTRA_DEVICE inline
#define LUTRA_DEVICE_CALL inline
#define LUTRA_UNROLL
#define LUTRA_ROLLED
#endif

namespace lutra::cuda {

constexpr int kWarp = 32;

// Registers that one load fills.
struct alignas(16) Words4 {
  uint32_t w[4];
};
struct alignas(8) Words2 {
  uint32_t w[2];
};

}  // namespace lutra::cuda

#if defined(__CUDACC__)
#include "cuda/simt/device_simt.h"
#else
#include "cuda/simt/host_simt.h"
#endif
