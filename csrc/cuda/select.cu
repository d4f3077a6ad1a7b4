// select: exactly keep[b] rows of each video, by rank or by systematic sampling. A block per video.
#include "kernels.h"
#include "launch.cuh"
#include "score/ordering.h"
#include "systematic.cuh"
#include "topk.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 1024;
static_assert(kThreads == kTopkThreads && kThreads == kSystematicThreads);

struct TopkRule {
  using Storage = TopkStorage;

  template <typename Emit>
  __device__ void operator()(const float* scores, int64_t length, int64_t keep, Storage& storage, Emit emit) const {
    const auto rank_at = [scores](int64_t i) { return rank_bits(__ldg(scores + i)); };
    const Threshold threshold = find_threshold(rank_at, length, keep, storage);
    compact(
        rank_at, length, keep, threshold, storage, [&](int64_t position, int64_t i, uint32_t) { emit(position, i); });
  }
};

struct SystematicRule {
  using Storage = SystematicStorage;
  double offset;

  template <typename Emit>
  __device__ void operator()(const float* scores, int64_t length, int64_t keep, Storage& storage, Emit emit) const {
    systematic_rows(scores, length, keep, offset, storage, emit);
  }
};

// index [total_keep]
template <typename Rule>
__global__ void __launch_bounds__(kThreads) select_rows(
    const float* scores, PackedBatch batch, const int32_t* keep, int64_t total_keep, Rule rule, int64_t* index) {
  __shared__ KeptStorage<kThreads> kept_storage;
  __shared__ typename Rule::Storage storage;
  const int64_t video = blockIdx.x;
  const VideoRange range = video_range(batch, video);
  const KeptRange kept = kept_range<kThreads>(batch, keep, total_keep, video, kept_storage);
  if (kept.size > 0) {
    rule(scores + range.begin, range.length(), kept.size, storage, [&](int64_t position, int64_t i) {
      if (position < kept.size) index[kept.begin + position] = range.begin + i;
    });
  }
  // Budgets that fall short of total_keep are the caller's mistake; what they leave over still has to be a row.
  if (video == batch.num_videos - 1) {
    for (int64_t at = kept.begin + kept.size + threadIdx.x; at < total_keep; at += kThreads) index[at] = 0;
  }
}

template <typename Rule>
cudaError_t launch(
    const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, Rule rule, int64_t* index,
    cudaStream_t stream) {
  SCORE_LAUNCH(
      select_rows<Rule>, grid_size(batch.num_videos), kThreads, 0, stream, scores, batch, keep, total_keep, rule,
      index);
  return cudaGetLastError();
}

}  // namespace

cudaError_t select(
    const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, SelectionRule selection,
    double offset, int64_t* index, cudaStream_t stream) {
  if (total_keep == 0 || batch.num_videos == 0) return cudaSuccess;
  return selection == SelectionRule::kTopK
             ? launch(scores, batch, keep, total_keep, TopkRule{}, index, stream)
             : launch(scores, batch, keep, total_keep, SystematicRule{offset}, index, stream);
}

}  // namespace score::cuda
