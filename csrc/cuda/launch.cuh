// Launching kernels: the one place that knows whether nvcc or the emulation of tests/cuda_emulation compiles.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define SCORE_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#else
#define SCORE_LAUNCH(kernel, grid, block, stream, ...) ::emulation::launch(grid, block, [=] { kernel(__VA_ARGS__); })
#endif

namespace score::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a grid's x can be; kernels stride over what lies beyond.
constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max();

inline unsigned grid_size(int64_t blocks) { return static_cast<unsigned>(std::min(blocks, kMaxGrid)); }

// How many blocks of a kernel the current device runs at once.
template <typename Kernel>
cudaError_t resident_blocks(Kernel kernel, int threads, int64_t* blocks) {
  int device = 0, multiprocessors = 0, per_multiprocessor = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) {
    return error;
  }
  if (cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads, 0)) {
    return error;
  }
  *blocks = std::max<int64_t>(1, static_cast<int64_t>(multiprocessors) * per_multiprocessor);
  return cudaSuccess;
}

}  // namespace score::cuda
