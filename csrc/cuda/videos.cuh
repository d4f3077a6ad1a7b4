// Finding one's way in the packed batch from inside a kernel.
#pragma once

#include <cub/block/block_reduce.cuh>

#include "score/packed.h"

namespace score::cuda {

// The video that holds a token: the first one that ends behind it. Some video whatever the offsets are.
__device__ inline int64_t find_video(const PackedBatch& batch, int64_t token) {
  int64_t low = 0, high = batch.num_videos - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (batch.cu_seqlens[middle + 1] > token) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

__device__ inline int64_t frame_tokens(const int32_t* tokens_per_frame, int64_t video) {
  const int64_t n = tokens_per_frame[video];
  return n < 1 ? 1 : n;
}

// The slice of an [.., total_keep] row that belongs to one video; inside of the row whatever the budgets are.
struct KeptRange {
  int64_t begin;
  int64_t size;
};

template <int kThreads>
struct KeptStorage {
  typename cub::BlockReduce<int64_t, kThreads>::TempStorage reduce;
  int64_t before;
};

// Called by all threads of the block; budgets of the videos before this one are summed on the spot, which costs less
// than a launch to prepare them.
template <int kThreads>
__device__ KeptRange kept_range(
    const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t video, KeptStorage<kThreads>& storage) {
  int64_t mine = 0;
  for (int64_t v = threadIdx.x; v < video; v += kThreads) mine += video_keep(keep, v, video_range(batch, v));
  const int64_t sum = cub::BlockReduce<int64_t, kThreads>(storage.reduce).Sum(mine);
  if (threadIdx.x == 0) storage.before = sum;
  __syncthreads();
  const int64_t begin = storage.before < total_keep ? storage.before : total_keep;
  const int64_t size = video_keep(keep, video, video_range(batch, video));
  return {begin, size < total_keep - begin ? size : total_keep - begin};
}

}  // namespace score::cuda
