// Which blocks of a cooperative grid form which team.
#include <cub/block/block_scan.cuh>

#include "team.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = kMaxSeats;

// What lies before a video: blocks, and rows kept.
struct PlanSums {
  int64_t blocks;
  int64_t kept;
};

struct AddPlanSums {
  __device__ PlanSums operator()(const PlanSums& a, const PlanSums& b) const {
    return {a.blocks + b.blocks, a.kept + b.kept};
  }
};

// A block per team clears what is the team's; the first one makes the seats. num_videos <= num_seats <= kThreads.
__global__ void __launch_bounds__(kThreads) seat_teams(
    TeamGrid grid, PackedBatch batch, const int32_t* keep, int64_t total_keep, int32_t* cleared, int words,
    int stride) {
  using LengthScan = cub::BlockScan<int64_t, kThreads>;
  using PlanScan = cub::BlockScan<PlanSums, kThreads>;
  __shared__ LengthScan::TempStorage length_storage;
  __shared__ PlanScan::TempStorage plan_storage;
  __shared__ TeamSeat videos[kThreads];  // each video's first seat
  __shared__ int32_t first_seat[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < words; i += kThreads) cleared[static_cast<int64_t>(blockIdx.x) * stride + i] = 0;
  if (thread == 0) grid.counters[static_cast<int64_t>(blockIdx.x) * TeamGrid::kCounterStride] = 0;
  if (blockIdx.x > 0) return;
  if (batch.num_videos == 1) {  // all of the grid; most calls are such, and what follows takes longer than they need
    const VideoRange range = video_range(batch, 0);
    const int64_t kept = video_keep(keep, 0, range), most = ceil_div(range.length(), grid.tokens_per_block);
    const int size = static_cast<int>(most < 1 ? 1 : (most < grid.num_seats ? most : grid.num_seats));
    if (thread < grid.num_seats) {
      grid.seats[thread] = {
          thread < size ? 0 : -1,
          thread,
          size,
          static_cast<int32_t>(range.begin),
          static_cast<int32_t>(range.end),
          0,
          static_cast<int32_t>(kept < total_keep ? kept : total_keep),
          0};
    }
    return;
  }

  const bool exists = thread < batch.num_videos;
  const VideoRange range = exists ? video_range(batch, thread) : VideoRange{0, 0};
  int64_t ignored, all;
  LengthScan(length_storage).InclusiveSum(range.length(), ignored, all);
  // One block for each video and a share of the rest: never more than there are, whatever the offsets are.
  int64_t size = 0;
  if (exists) {
    const int64_t most = ceil_div(range.length(), grid.tokens_per_block);
    size = 1 + range.length() * (grid.num_seats - batch.num_videos) / (all > 0 ? all : 1);
    size = size < most ? size : (most > 1 ? most : 1);
  }
  const int64_t kept = exists ? video_keep(keep, thread, range) : 0;
  PlanSums sums{size, kept}, total;
  PlanScan(plan_storage).InclusiveScan(sums, sums, AddPlanSums(), total);
  if (exists) {
    const int64_t before = sums.kept - kept, kept_begin = before < total_keep ? before : total_keep;
    first_seat[thread] = static_cast<int32_t>(sums.blocks - size);
    videos[thread] = {
        thread,
        0,
        static_cast<int32_t>(size),
        static_cast<int32_t>(range.begin),
        static_cast<int32_t>(range.end),
        static_cast<int32_t>(kept_begin),
        static_cast<int32_t>(kept < total_keep - kept_begin ? kept : total_keep - kept_begin),
        0};
  }
  __syncthreads();
  for (int s = thread; s < grid.num_seats; s += kThreads) {
    int low = 0, high = static_cast<int>(batch.num_videos) - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first_seat[middle] <= s) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    TeamSeat seat = videos[low];
    seat.rank = s - first_seat[low];
    if (seat.rank >= seat.size) seat.video = -1;
    grid.seats[s] = seat;
  }
}

}  // namespace

cudaError_t count_seats(const PackedBatch& batch, int64_t num_samples, int* num_seats, const TeamWork& work) {
  *num_seats = 0;
  if (batch.num_tokens < work.min_tokens + work.min_tokens_per_video * (batch.num_videos - 1)) return cudaSuccess;
  int device = 0, cooperative = 0, multiprocessors = 0;
  if (cudaError_t error = cudaGetDevice(&device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device)) return error;
  if (cudaError_t error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) {
    return error;
  }
  // A block on each multiprocessor: kernels for teams are made so that one always fits.
  const int64_t most = std::min<int64_t>(kMaxSeats, multiprocessors / num_samples);
  const int64_t seats = std::min(most, batch.num_videos + ceil_div(batch.num_tokens, work.tokens_per_block));
  if (cooperative != 0 && seats >= 2 * batch.num_videos) *num_seats = static_cast<int>(seats);
  return cudaSuccess;
}

cudaError_t plan_teams(
    const TeamGrid& grid, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int32_t* cleared,
    int words, int stride, cudaStream_t stream) {
  SCORE_LAUNCH(
      seat_teams, grid_size(grid.num_samples * batch.num_videos), kThreads, 0, stream, grid, batch, keep, total_keep,
      cleared, words, stride);
  return cudaGetLastError();
}

}  // namespace score::cuda
