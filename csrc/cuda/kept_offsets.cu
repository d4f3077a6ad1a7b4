// kept_offsets: where each video's kept tokens start.
#include <cub/block/block_scan.cuh>

#include "kernels.h"
#include "launch.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) sum_budgets(PackedBatch batch, const int32_t* keep, int32_t* cu_kept) {
  using Scan = cub::BlockScan<int64_t, kThreads>;
  __shared__ Scan::TempStorage storage;
  int64_t before = 0;
  if (threadIdx.x == 0) cu_kept[0] = 0;
  for (int64_t base = 0; base < batch.num_videos; base += kThreads) {
    const int64_t video = base + threadIdx.x;
    const bool exists = video < batch.num_videos;
    int64_t sum = exists ? video_keep(keep, video, video_range(batch, video)) : 0, tile = 0;
    Scan(storage).InclusiveSum(sum, sum, tile);
    if (exists) cu_kept[video + 1] = static_cast<int32_t>(before + sum);
    before += tile;
    __syncthreads();
  }
}

}  // namespace

cudaError_t kept_offsets(const PackedBatch& batch, const int32_t* keep, int32_t* cu_kept, cudaStream_t stream) {
  SCORE_LAUNCH(sum_budgets, 1, kThreads, 0, stream, batch, keep, cu_kept);
  return cudaGetLastError();
}

}  // namespace score::cuda
