// Launching kernels: the one place that knows whether nvcc or the emulation of tests/cuda_emulation compiles.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define SCORE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define SCORE_DYNAMIC_SHARED(Type, name) extern __shared__ Type name[]
#else
#define SCORE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::emulation::launch(grid, block, shared_bytes, stream, [=] { kernel(__VA_ARGS__); })
#define SCORE_DYNAMIC_SHARED(Type, name) Type* const name = static_cast<Type*>(::emulation::dynamic_shared())
#endif

namespace score::cuda {

#if defined(__CUDACC__)
// A counter in global memory that blocks of one grid share. What a thread wrote, or saw written, before add_release is
// seen by a thread whose load_acquire reads the sum.
__device__ inline void add_release(uint32_t* counter, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(counter)), "r"(value)
               : "memory");
}
__device__ inline uint32_t load_acquire(const uint32_t* counter) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(counter)) : "memory");
  return value;
}
#else
using ::emulation::add_release, ::emulation::load_acquire;
#endif

// All blocks are resident at once, so that they may wait for each other; an error where the device has no room for
// them.
template <typename... Parameters>
cudaError_t launch_cooperative(
    void (*kernel)(Parameters...), unsigned grid, unsigned block, cudaStream_t stream,
    std::type_identity_t<Parameters>... arguments) {
#if defined(__CUDACC__)
  void* pointers[] = {&arguments...};
  return cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, 0, stream);
#else
  return ::emulation::launch_cooperative(grid, block, stream, [=] { kernel(arguments...); });
#endif
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a grid's x can be; kernels stride over what lies beyond.
constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max();

inline unsigned grid_size(int64_t blocks) { return static_cast<unsigned>(std::min(blocks, kMaxGrid)); }

// How many blocks of a kernel the current device runs at once.
template <typename Kernel>
cudaError_t resident_blocks(Kernel kernel, int threads, int shared_bytes, int64_t* blocks) {
  int device = 0, multiprocessors = 0, per_multiprocessor = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) {
    return error;
  }
  if (cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &per_multiprocessor, kernel, threads, static_cast<size_t>(shared_bytes))) {
    return error;
  }
  *blocks = std::max<int64_t>(1, static_cast<int64_t>(multiprocessors) * per_multiprocessor);
  return cudaSuccess;
}

}  // namespace score::cuda
