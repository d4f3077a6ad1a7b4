// Into how many parts each video of each sample falls where blocks need not meet.
#pragma once

#include <algorithm>

#include "launch.cuh"
#include "score/packed.h"

namespace score::cuda {

constexpr int64_t kMaxPartBlocks = 1024;  // some for each multiprocessor of the largest devices

// `length` is of what is to be divided, tokens or rows kept of all videos, in tiles of `tile`. The host does not know
// how it is spread over the videos: a part of a short one may have nothing to do. 1 where videos are short or many.
inline int64_t count_parts(const PackedBatch& batch, int64_t num_samples, int64_t length, int64_t tile) {
  if (length < 2 * tile * batch.num_videos) return 1;
  const int64_t most = kMaxPartBlocks / (num_samples * batch.num_videos);
  return std::max<int64_t>(1, std::min(most, ceil_div(length, tile)));
}

}  // namespace score::cuda
