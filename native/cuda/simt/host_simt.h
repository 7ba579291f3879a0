// The words of simt.h on a machine of fibers: every thread of a grid is a fiber with a stack of its own, and the next
// one to run is drawn at random wherever threads may overtake each other. So results that depend on the order of
// threads or blocks differ between seeds, a barrier that not all threads reach is found, and so is a block that waits
// for one that was not started. What it cannot show: caches, memory ordering, speed.
//
// The matrix unit is the fragment layout of the PTX ISA, element by element, through one 16x16 and one 16x8 matrix. Its
// sums are exact and then cut off to fp32 towards zero, which is the least that tensor cores do.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>

#include "core/half.h"
#include "cuda/simt/simt.h"

namespace lutra::cuda {

struct HostLaunch {
  int blocks = 1;
  int threads = kWarp;
  size_t shared_bytes = 0;
  int resident = 1;  // blocks that run at a time; another starts where one ends, in order
  uint64_t seed = 1;
};

// Runs the body once for every thread. Returns what was wrong with the way it met barriers, or nothing.
std::string run_grid(const HostLaunch& launch, const std::function<void(uint8_t* shared)>& body);

int thread_index();
int block_index();
int grid_blocks();
int block_threads();
void sync_block();
void sync_warp();
float shuffle_xor(float value, int mask);
void mma_f16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void pause_spin();

inline float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline float exp_of(float value) { return std::exp(value); }
inline float square_root(float value) { return std::sqrt(value); }
inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float float_of_half(uint32_t bits) { return half_to_float(static_cast<uint16_t>(bits)); }
inline uint32_t half_of(float value) { return float_to_half(value); }

// Vector loads trap here as they do there where their address is not aligned.
void check_aligned(const void* p, size_t bytes);
inline Words4 load4(const void* p) {
  check_aligned(p, 16);
  Words4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Words2 load2(const void* p) {
  check_aligned(p, 8);
  Words2 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Words4 load_once4(const uint32_t* p) { return load4(p); }
inline Words2 load_once2(const uint32_t* p) { return load2(p); }
template <typename T>
inline T load(const T* p) {
  check_aligned(p, sizeof(T));
  return *p;
}
inline float load_written(const float* p) { return *p; }

// Each copy happens at once or when it is waited for, drawn at random: code that waits too little finds what was there
// before, and code that copies too early writes over what others still read.
void copy_async16(void* shared, const void* from);
void commit_copies();
void wait_copies(int newer);

// Fibers share one thread of the host: plain memory is in order, and others get their turn at each of these.
uint32_t publish(uint32_t* counter);
inline uint32_t look(const uint32_t* counter) { return *counter; }
inline void after_look() {}

inline uint32_t add_half2(uint32_t a, uint32_t b) {
  const auto sum = [](uint32_t p, uint32_t q) { return half_of(float_of_half(p) + float_of_half(q)); };
  return sum(a & 0xffffu, b & 0xffffu) | sum(a >> 16, b >> 16) << 16;
}
inline void atomic_add_half2(uint32_t* p, uint32_t two) { *p = add_half2(*p, two); }

}  // namespace lutra::cuda
