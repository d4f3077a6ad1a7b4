// Kernels with planted faults: what the emulation is there to find (test_emulator.py).
#include <cuda_pipeline_primitives.h>

#include <cub/block/block_reduce.cuh>

#include "../../csrc/cuda/launch.cuh"
#include "faults.h"

namespace {

using Reduce = cub::BlockReduce<int, 64>;

__global__ void outside_of_global(int* out, int size) {
  if (threadIdx.x == 0) out[size] = 1;
}

__global__ void outside_of_dynamic_shared(int* out) {
  SCORE_DYNAMIC_SHARED(int, values);
  values[threadIdx.x + 1] = 1;
  __syncthreads();
  out[0] = values[0];
}

__global__ void outside_of_static_shared(int* out) {
  __shared__ int values[64];
  values[threadIdx.x + out[0]] = 1;
  out[0] = values[threadIdx.x];
}

__global__ void missed_barrier(int*) {
  if (threadIdx.x != 3) __syncthreads();
}

__global__ void diverging_barriers(int*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void missing_lane(int* out) {
  if (threadIdx.x % 32 != 5) out[0] = static_cast<int>(__match_any_sync(0xFFFFFFFFu, threadIdx.x));
}

__global__ void storage_reused(int* out) {
  __shared__ Reduce::TempStorage storage;
  const int sum = Reduce(storage).Sum(1);
  const int again = Reduce(storage).Sum(2);
  if (threadIdx.x == 0) out[0] = sum + again;
}

__global__ void copy_not_waited_for(int* out) {
  __shared__ uint4 values;
  if (threadIdx.x == 0) {
    __pipeline_memcpy_async(&values, out, 16);
    __pipeline_commit();
  }
}

// Not a fault that ends the run: the threads' turns decide the result. out[0] takes what thread 63 wrote, or not.
__global__ void race(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = 0;
  __syncthreads();
  values[threadIdx.x] = 1;
  if (threadIdx.x == 0) out[0] = values[63];
}

}  // namespace

cudaError_t fault(int number, int* out, int size, cudaStream_t stream) {
  constexpr int kThreads = 64;
  switch (number) {
    case 0:
      SCORE_LAUNCH(outside_of_global, 1, kThreads, 0, stream, out, size);
      break;
    case 1:
      SCORE_LAUNCH(outside_of_dynamic_shared, 1, kThreads, kThreads * sizeof(int), stream, out);
      break;
    case 2:
      SCORE_LAUNCH(outside_of_static_shared, 1, kThreads, 0, stream, out);
      break;
    case 3:
      SCORE_LAUNCH(missed_barrier, 1, kThreads, 0, stream, out);
      break;
    case 4:
      SCORE_LAUNCH(diverging_barriers, 1, kThreads, 0, stream, out);
      break;
    case 5:
      SCORE_LAUNCH(missing_lane, 1, kThreads, 0, stream, out);
      break;
    case 6:
      SCORE_LAUNCH(storage_reused, 1, kThreads, 0, stream, out);
      break;
    case 7:
      SCORE_LAUNCH(copy_not_waited_for, 1, kThreads, 0, stream, out);
      break;
    case 8:
      SCORE_LAUNCH(race, 1, kThreads, 0, stream, out);
      break;
    case 9:
      SCORE_LAUNCH(missed_barrier, 1, kThreads, 0, nullptr, out);
      break;
    case 11:
      for (const int bytes : {2048, 1024}) {
        if (cudaError_t error = cudaFuncSetAttribute(race, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) {
          return error;
        }
      }
      break;
    default:
      SCORE_LAUNCH(missed_barrier, 1, 2048, 0, stream, out);
  }
  return cudaGetLastError();
}
