// Asynchronous copies into shared memory, as CUDA's header has them, and the wait that it lacks.
#pragma once

#include <cuda_pipeline_primitives.h>

namespace score::cuda {

// Waits until all but the last kGroupsLeft groups that this thread committed have arrived. CUDA's own function is no
// fence for the compiler: where no barrier follows, because a thread reads only what it copied itself, nothing else
// keeps its reads behind the wait.
template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
  __pipeline_wait_prior(kGroupsLeft);
  asm volatile("" ::: "memory");
}

}  // namespace score::cuda
