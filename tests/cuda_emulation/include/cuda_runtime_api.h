// Stand-in for CUDA's header: the part of the runtime and of the language that csrc/cuda uses, on the CPU.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <source_location>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time. What an earlier block left there is still there, as on the device. In a section of its own,
// so that blocks which take turns can be given their own contents; g++ ignores that within templates, so a kernel that
// is launched cooperatively must not be one.
#define __shared__ static __attribute__((section("emulated_shared")))

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorCooperativeLaunchTooLarge = 720
};
using cudaStream_t = void*;
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrCooperativeLaunch = 95 };
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set anew whenever a thread gets its turn.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

// The device: how many multiprocessors it claims to have, each running one block at a time, in which order threads and
// blocks get their turns, and how much shared memory a block may ask for.
struct Device {
  int multiprocessors = 1;
  bool backwards = false;
  int shared_bytes = 99 << 10;  // sm_86, 89 and 120 have the least of all from Ampere on
};
extern Device device;

// The one stream that launches may go to: what main.cpp passes as the caller's.
inline const cudaStream_t kStream = &device;

void launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, const std::function<void()>& kernel);
// With all blocks at once: they may wait for each other with load_acquire.
cudaError_t launch_cooperative(dim3 grid, dim3 block, cudaStream_t stream, const std::function<void()>& kernel);
void* dynamic_shared();
void add_release(uint32_t* counter, uint32_t value);
// Every look at a counter is a chance for other threads and blocks.
uint32_t load_acquire(const uint32_t* counter);
cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int value);

// Waits for all threads of the block. `barrier` says whether CUDA promises one here, as opposed to a wait inside of a
// stand-in, which orders nothing for the kernel.
void wait_for_block(bool barrier, std::source_location where);
// A barrier at which everybody learns whether anybody voted yes.
bool wait_and_vote(bool vote, std::source_location where);

// Hands `value` to the other lanes of `mask`; all of them must come to the same place. Returns everybody's values.
const uint64_t* exchange(unsigned mask, uint64_t value, const char* what, std::source_location where);

// Copies when the thread waits for it, no sooner.
void copy_later(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_for_copies(int groups_left);

[[noreturn]] void fail(const char* format, ...);

inline unsigned thread_number() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

}  // namespace emulation

cudaError_t cudaGetLastError();
inline cudaError_t cudaGetDevice(int* number) {
  *number = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrCooperativeLaunch ? 1 : emulation::device.multiprocessors;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute attribute, int value) {
  return emulation::set_attribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  emulation::wait_for_block(true, where);
}
inline int __syncthreads_or(int predicate, std::source_location where = std::source_location::current()) {
  return emulation::wait_and_vote(predicate != 0, where);
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, std::source_location where = std::source_location::current()) {
  emulation::exchange(mask, 0, "__syncwarp", where);
}

inline unsigned __match_any_sync(
    unsigned mask, unsigned value, std::source_location where = std::source_location::current()) {
  const uint64_t* values = emulation::exchange(mask, value, "__match_any_sync", where);
  unsigned peers = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) && values[lane] == value) peers |= 1u << lane;
  }
  return peers;
}

inline float __shfl_xor_sync(
    unsigned mask, float value, unsigned lanes, std::source_location where = std::source_location::current()) {
  const uint64_t* values = emulation::exchange(mask, std::bit_cast<uint32_t>(value), "__shfl_xor_sync", where);
  return std::bit_cast<float>(static_cast<uint32_t>(values[emulation::thread_number() % 32 ^ lanes]));
}

inline uint32_t __shfl_xor_sync(
    unsigned mask, uint32_t value, unsigned lanes, std::source_location where = std::source_location::current()) {
  return std::bit_cast<uint32_t>(__shfl_xor_sync(mask, std::bit_cast<float>(value), lanes, where));
}

inline float sinpif(float x) { return static_cast<float>(std::sin(M_PI * x)); }
inline float cospif(float x) { return static_cast<float>(std::cos(M_PI * x)); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }

template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

inline int atomicAdd(int* address, int value) {
  const int before = *address;
  *address += value;
  return before;
}

inline unsigned long long atomicMax(unsigned long long* address, unsigned long long value) {
  const unsigned long long before = *address;
  *address = before > value ? before : value;
  return before;
}
