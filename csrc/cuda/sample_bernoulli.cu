// sample_bernoulli: every token by itself, kept with probability sigmoid(logit). A video of each sample falls into
// parts, a block each, whose sums a second kernel adds up in a fixed order; where one part is all, there is no second
// kernel.
//
// Prediction, not measured, for an H200 and 8 samples of one video of 40,000 tokens: two launches, 7 us in a CUDA
// graph.
#include <cub/block/block_reduce.cuh>

#include "kernels.h"
#include "launch.cuh"
#include "parts.cuh"
#include "score/philox.h"
#include "score/transcendental.h"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 4 * kThreads;  // tokens: a thread takes the four of a Philox block

struct Outcome {
  double log_prob;
  int64_t count;
};

struct AddOutcomes {
  __device__ Outcome operator()(const Outcome& a, const Outcome& b) const {
    return {a.log_prob + b.log_prob, a.count + b.count};
  }
};

using OutcomeReduce = cub::BlockReduce<Outcome, kThreads>;

// A block per part of a video of a sample; outcomes [num_samples, num_videos, parts], null where parts is 1.
__global__ void __launch_bounds__(kThreads) sample_parts(
    const float* logits, PackedBatch batch, const int64_t* seed, int64_t num_seeds, int64_t parts, bool* mask,
    float* log_prob, int32_t* count, Outcome* outcomes) {
  __shared__ OutcomeReduce::TempStorage storage;
  const int64_t task = blockIdx.x / parts, part = blockIdx.x % parts;
  const int64_t sample = task / batch.num_videos, video = task % batch.num_videos;
  const VideoRange range = video_range(batch, video);
  const VideoKey key = video_key(seed, num_seeds, video);
  Outcome own{0.0, 0};
  for (int64_t tile = part * kTile; tile < range.length(); tile += parts * kTile) {
    const int64_t quad = tile / 4 + threadIdx.x;
    if (4 * quad >= range.length()) break;
    uint32_t words[4];
    philox(key.seed, Stream::kBernoulli, static_cast<uint32_t>(sample), key.video, static_cast<uint32_t>(quad), words);
#pragma unroll
    for (int lane = 0; lane < 4; ++lane) {
      const int64_t token = range.begin + 4 * quad + lane;
      if (token >= range.end) break;
      const float logit = logits[token];
      const bool kept = bernoulli(words[lane], logit);
      mask[sample * batch.num_tokens + token] = kept;
      own.log_prob += log_sigmoid(kept ? logit : -logit);
      own.count += kept;
    }
  }
  const Outcome all = OutcomeReduce(storage).Reduce(own, AddOutcomes());
  if (threadIdx.x > 0) return;
  if (parts > 1) {
    outcomes[blockIdx.x] = all;
  } else {
    log_prob[task] = static_cast<float>(all.log_prob);
    count[task] = static_cast<int32_t>(all.count);
  }
}

// A block per video of a sample.
__global__ void __launch_bounds__(kThreads)
    add_outcomes(const Outcome* outcomes, int64_t parts, float* log_prob, int32_t* count) {
  __shared__ OutcomeReduce::TempStorage storage;
  Outcome own{0.0, 0};
  for (int64_t part = threadIdx.x; part < parts; part += kThreads) {
    own = AddOutcomes()(own, outcomes[blockIdx.x * parts + part]);
  }
  const Outcome all = OutcomeReduce(storage).Reduce(own, AddOutcomes());
  if (threadIdx.x > 0) return;
  log_prob[blockIdx.x] = static_cast<float>(all.log_prob);
  count[blockIdx.x] = static_cast<int32_t>(all.count);
}

}  // namespace

size_t sample_bernoulli_workspace(const PackedBatch& batch, int64_t num_samples) {
  const int64_t parts = count_parts(batch, num_samples, batch.num_tokens, kTile);
  return parts > 1 ? static_cast<size_t>(num_samples * batch.num_videos * parts) * sizeof(Outcome) : 0;
}

cudaError_t sample_bernoulli(
    const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
    bool* mask, float* log_prob, int32_t* count, void* workspace, cudaStream_t stream) {
  const int64_t tasks = num_samples * batch.num_videos;
  if (tasks == 0) return cudaSuccess;
  if (tasks > kMaxGrid) return cudaErrorInvalidConfiguration;
  const int64_t parts = count_parts(batch, num_samples, batch.num_tokens, kTile);
  Outcome* const outcomes = static_cast<Outcome*>(workspace);
  SCORE_LAUNCH(
      sample_parts, grid_size(tasks * parts), kThreads, 0, stream, logits, batch, seed, num_seeds, parts, mask,
      log_prob, count, outcomes);
  if (cudaError_t error = cudaGetLastError()) return error;
  if (parts > 1) {
    SCORE_LAUNCH(add_outcomes, grid_size(tasks), kThreads, 0, stream, outcomes, parts, log_prob, count);
  }
  return cudaGetLastError();
}

}  // namespace score::cuda
