// The words of simt.h as instructions. sm_80 and newer.
#pragma once

#include <cuda_fp16.h>

#include "cuda/simt/simt.h"

namespace lutra::cuda {

LUTRA_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
LUTRA_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
LUTRA_DEVICE int grid_blocks() { return static_cast<int>(gridDim.x); }
LUTRA_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }

LUTRA_DEVICE void sync_block() { __syncthreads(); }
LUTRA_DEVICE void sync_warp() { __syncwarp(); }
LUTRA_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

LUTRA_DEVICE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
// Within two units of the last place; 0 for minus infinity.
LUTRA_DEVICE float exp_of(float value) { return expf(value); }
LUTRA_DEVICE float square_root(float value) { return sqrtf(value); }
LUTRA_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
LUTRA_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
LUTRA_DEVICE float float_of_half(uint32_t bits) { return __half2float(__ushort_as_half(static_cast<uint16_t>(bits))); }
LUTRA_DEVICE uint32_t half_of(float value) { return __half_as_ushort(__float2half_rn(value)); }

// c += a b on the tensor cores, fp32 accumulators. All lanes of a warp take part: volatile, or the compiler may move
// one under a branch that only some of them take, where alone its result is used.
LUTRA_DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
LUTRA_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Weights are read once: past L1, and asking DRAM for whole lines of 256 bytes.
LUTRA_DEVICE Words4 load_once4(const uint32_t* p) {
  Words4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
               : "l"(p));
  return v;
}
LUTRA_DEVICE Words2 load_once2(const uint32_t* p) {
  Words2 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%0,%1}, [%2];" : "=r"(v.w[0]), "=r"(v.w[1]) : "l"(p));
  return v;
}
// What a launch only reads, through L1.
template <typename T>
LUTRA_DEVICE T load(const T* p) {
  return __ldg(p);
}
LUTRA_DEVICE Words4 load4(const void* p) {
  const uint4 v = __ldg(static_cast<const uint4*>(p));
  return {{v.x, v.y, v.z, v.w}};
}
LUTRA_DEVICE Words2 load2(const void* p) {
  const uint2 v = __ldg(static_cast<const uint2*>(p));
  return {{v.x, v.y}};
}
// What other blocks of this launch wrote: from L2, where they meet.
LUTRA_DEVICE float load_written(const float* p) { return __ldcg(p); }

// Hands everything this block wrote so far to whoever sees the counter's new value. Called by one thread behind
// sync_block(); returns the value before.
LUTRA_DEVICE uint32_t publish(uint32_t* counter) {
  __threadfence();
  return atomicAdd(counter, 1u);
}
LUTRA_DEVICE uint32_t look(const uint32_t* counter) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}
// Every thread that reads what was published calls it after the one that looked has passed sync_block().
LUTRA_DEVICE void after_look() { __threadfence(); }
LUTRA_DEVICE void pause_spin() { __nanosleep(64); }

// 16 bytes from memory to shared memory, past registers and L1. Each thread's copies since its last commit are one
// group; wait_copies(n) returns when all but the last n groups of the thread (0 to 2) are there, for this thread alone.
LUTRA_DEVICE void copy_async16(void* shared, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(from)
               : "memory");
}
LUTRA_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
LUTRA_DEVICE void wait_copies(int newer) {
  if (newer == 0) asm volatile("cp.async.wait_group 0;" ::: "memory");
  if (newer == 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
  if (newer == 2) asm volatile("cp.async.wait_group 2;" ::: "memory");
}

// Adds two halves into memory (the published LUT-GEMM's way to join its k tiles; the order is the hardware's).
LUTRA_DEVICE void atomic_add_half2(uint32_t* p, uint32_t two) {
  atomicAdd(reinterpret_cast<__half2*>(p), *reinterpret_cast<const __half2*>(&two));
}
LUTRA_DEVICE uint32_t add_half2(uint32_t a, uint32_t b) {
  const __half2 sum = __hadd2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&sum);
}

}  // namespace lutra::cuda
