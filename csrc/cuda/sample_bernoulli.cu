// sample_bernoulli: every token by itself, kept with probability sigmoid(logit).
#include <cub/block/block_reduce.cuh>

#include "kernels.h"
#include "launch.cuh"
#include "score/philox.h"
#include "score/transcendental.h"

namespace score::cuda {
namespace {

constexpr int kThreads = 1024;

// A block per (sample, video).
__global__ void __launch_bounds__(kThreads) sample_videos(
    const float* logits, PackedBatch batch, const int64_t* seed, int64_t num_seeds, bool* mask, float* log_prob,
    int32_t* count) {
  using SumReduce = cub::BlockReduce<double, kThreads>;
  using CountReduce = cub::BlockReduce<int32_t, kThreads>;
  __shared__ SumReduce::TempStorage sum_storage;
  __shared__ CountReduce::TempStorage count_storage;
  const int64_t sample = blockIdx.x / batch.num_videos, video = blockIdx.x % batch.num_videos;
  const VideoRange range = video_range(batch, video);
  const VideoKey key = video_key(seed, num_seeds, video);

  double sum = 0.0;
  int32_t kept_count = 0;
  // Four tokens share one Philox block.
  for (int64_t quad = threadIdx.x; 4 * quad < range.length(); quad += kThreads) {
    uint32_t words[4];
    philox(key.seed, Stream::kBernoulli, static_cast<uint32_t>(sample), key.video, static_cast<uint32_t>(quad), words);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      const int64_t token = range.begin + 4 * quad + lane;
      if (token >= range.end) break;
      const float logit = logits[token];
      const bool kept = bernoulli(words[lane], logit);
      mask[sample * batch.num_tokens + token] = kept;
      sum += log_sigmoid(kept ? logit : -logit);
      kept_count += kept;
    }
  }
  sum = SumReduce(sum_storage).Sum(sum);
  kept_count = CountReduce(count_storage).Sum(kept_count);
  if (threadIdx.x == 0) {
    log_prob[blockIdx.x] = static_cast<float>(sum);
    count[blockIdx.x] = kept_count;
  }
}

}  // namespace

cudaError_t sample_bernoulli(
    const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
    bool* mask, float* log_prob, int32_t* count, cudaStream_t stream) {
  const int64_t blocks = num_samples * batch.num_videos;
  if (blocks == 0) return cudaSuccess;
  if (blocks > kMaxGrid) return cudaErrorInvalidConfiguration;
  SCORE_LAUNCH(
      sample_videos, grid_size(blocks), kThreads, 0, stream, logits, batch, seed, num_seeds, mask, log_prob, count);
  return cudaGetLastError();
}

}  // namespace score::cuda
