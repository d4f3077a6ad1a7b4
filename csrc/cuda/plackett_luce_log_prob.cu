// plackett_luce_log_prob: the log-probability of drawing rows in an order without replacement, and its gradient.
//
//   log P = sum_j [ l_j - log Z_j ],   Z_j = sum of exp(l_i) over the tokens of the video not drawn before step j
//   d log P / d l_i = [i drawn] - exp(l_i) * sum of 1 / Z_j over the steps up to i's own, or up to the last one
//
// Z_j is summed backwards from the tokens never drawn and 1 / Z_j forwards, both as logarithms in double: positive
// terms are added and nothing cancels, however sure the policy is.
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "kernels.h"
#include "launch.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;

// exp(max) * sum, a sum of exponentials. That of nothing has the sum 0.
struct LogSum {
  double max;
  double sum;
};

constexpr LogSum kNothing{-INFINITY, 0.0};

struct AddLogSums {
  __device__ LogSum operator()(const LogSum& a, const LogSum& b) const {
    const LogSum& high = a.max < b.max ? b : a;
    const LogSum& low = a.max < b.max ? a : b;
    // Equal first, because infinities have no difference.
    return {high.max, high.sum + (low.max == high.max ? low.sum : low.sum * exp(low.max - high.max))};
  }
};

__device__ double log_of(const LogSum& value) { return value.max + log(value.sum); }

// What rank [num_samples, num_tokens] holds: for a token drawn at step j of its video the slot kept.begin + j, for one
// not drawn ~slot of the video's last step, and kNoStep where the video has none.
constexpr int32_t kNoStep = INT32_MIN;

struct Storage {
  using Reduce = cub::BlockReduce<LogSum, kThreads>;
  using Scan = cub::BlockScan<LogSum, kThreads>;
  using Sum = cub::BlockReduce<double, kThreads>;
  union {
    Reduce::TempStorage reduce;
    Scan::TempStorage scan;
    Sum::TempStorage sum;
  };
  LogSum rest;
};

// One video and sample; called by all threads. order [kept.size] are its rows in the order of drawing, rank
// [num_tokens] is filled for the video's tokens. Calls emit(j, log Z_j) for every step and returns log P to thread 0.
template <typename Emit>
__device__ double log_probability(
    const float* logits, const VideoRange& range, const KeptRange& kept, const int64_t* order, int32_t* rank,
    Storage& storage, Emit emit) {
  const int32_t last = kept.size > 0 ? static_cast<int32_t>(kept.begin + kept.size - 1) : 0;
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) rank[i] = kept.size > 0 ? ~last : kNoStep;
  __syncthreads();
  if (kept.size <= 0) return 0.0;
  const auto row_of = [&](int64_t j) {
    const int64_t row = order[j];
    return row < range.begin ? range.begin : (row < range.end ? row : range.end - 1);
  };
  for (int64_t j = threadIdx.x; j < kept.size; j += kThreads) rank[row_of(j)] = static_cast<int32_t>(kept.begin + j);
  __syncthreads();

  LogSum own = kNothing;
  bool invalid = false;
  for (int64_t i = range.begin + threadIdx.x; i < range.end; i += kThreads) {
    const float logit = logits[i];
    invalid = invalid || !(logit < INFINITY);
    if (rank[i] < 0) own = AddLogSums()(own, {logit, 1.0});
  }
  const LogSum rest = Storage::Reduce(storage.reduce).Reduce(own, AddLogSums());
  if (threadIdx.x == 0) storage.rest = rest;
  const bool is_nan = __syncthreads_or(invalid) != 0;

  LogSum after = storage.rest;  // what is left once the steps of this tile and all before it are done
  double log_prob = 0.0;
  for (int64_t tile_end = kept.size; tile_end > 0; tile_end -= kThreads) {
    const int64_t j = tile_end - 1 - threadIdx.x;
    const double logit = j >= 0 ? logits[row_of(j)] : 0.0;
    LogSum remaining = j >= 0 ? LogSum{logit, 1.0} : kNothing, tile;
    Storage::Scan(storage.scan).InclusiveScan(remaining, remaining, AddLogSums(), tile);
    if (j >= 0) {
      const double log_z = is_nan ? NAN : log_of(AddLogSums()(after, remaining));
      log_prob += logit == -INFINITY && !is_nan ? logit : logit - log_z;
      emit(j, log_z);
    }
    after = AddLogSums()(after, tile);
    __syncthreads();
  }
  return Storage::Sum(storage.sum).Sum(log_prob);
}

// A block per (sample, video).
__global__ void __launch_bounds__(kThreads) order_log_prob(
    const float* logits, PackedBatch batch, const int32_t* keep, int64_t total_keep, const int64_t* order,
    int32_t* rank, float* log_prob) {
  __shared__ KeptStorage<kThreads> kept_storage;
  __shared__ Storage storage;
  const int64_t sample = blockIdx.x / batch.num_videos, video = blockIdx.x % batch.num_videos;
  const KeptRange kept = kept_range<kThreads>(batch, keep, total_keep, video, kept_storage);
  const double sum = log_probability(
      logits, video_range(batch, video), kept, order + sample * total_keep + kept.begin,
      rank + sample * batch.num_tokens, storage, [](int64_t, double) {});
  if (threadIdx.x == 0) log_prob[blockIdx.x] = static_cast<float>(sum);
}

// log_shares [num_samples, total_keep]: log of the sum of 1 / Z_j' over the steps j' up to j. A block per (sample,
// video).
__global__ void __launch_bounds__(kThreads) sum_shares(
    const float* logits, PackedBatch batch, const int32_t* keep, int64_t total_keep, const int64_t* order,
    int32_t* rank, double* log_shares) {
  __shared__ KeptStorage<kThreads> kept_storage;
  __shared__ Storage storage;
  const int64_t sample = blockIdx.x / batch.num_videos, video = blockIdx.x % batch.num_videos;
  const KeptRange kept = kept_range<kThreads>(batch, keep, total_keep, video, kept_storage);
  double* const steps = log_shares + sample * total_keep + kept.begin;
  log_probability(
      logits, video_range(batch, video), kept, order + sample * total_keep + kept.begin,
      rank + sample * batch.num_tokens, storage, [steps](int64_t j, double log_z) { steps[j] = log_z; });
  __syncthreads();
  LogSum before = kNothing;
  for (int64_t tile = 0; tile < kept.size; tile += kThreads) {
    const int64_t j = tile + threadIdx.x;
    LogSum share = j < kept.size ? LogSum{-steps[j], 1.0} : kNothing, all;
    Storage::Scan(storage.scan).InclusiveScan(share, share, AddLogSums(), all);
    if (j < kept.size) steps[j] = log_of(AddLogSums()(before, share));
    before = AddLogSums()(before, all);
    __syncthreads();
  }
}

// A thread per token, which goes through the samples in order.
__global__ void __launch_bounds__(kThreads) gradient(
    const float* grad, const float* logits, PackedBatch batch, int64_t total_keep, int64_t num_samples,
    const int32_t* rank, const double* log_shares, float* grad_logits) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch.num_tokens; i += step) {
    const int64_t video = find_video(batch, i);
    const double logit = logits[i];
    double sum = 0.0;
    for (int64_t sample = 0; sample < num_samples; ++sample) {
      const int32_t at = rank[sample * batch.num_tokens + i];
      const int64_t slot = at < 0 ? ~at : at;
      if (at == kNoStep || slot >= total_keep) continue;  // the latter where no video holds the token
      const double share = exp(logit + log_shares[sample * total_keep + slot]);
      sum += grad[sample * batch.num_videos + video] * ((at < 0 ? 0.0 : 1.0) - share);
    }
    grad_logits[i] = static_cast<float>(sum);
  }
}

}  // namespace

cudaError_t plackett_luce_log_prob(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, int32_t* rank, float* log_prob, cudaStream_t stream) {
  const int64_t blocks = num_samples * batch.num_videos;
  if (blocks == 0) return cudaSuccess;
  if (blocks > kMaxGrid) return cudaErrorInvalidConfiguration;
  SCORE_LAUNCH(
      order_log_prob, grid_size(blocks), kThreads, 0, stream, logits, batch, keep, total_keep, order, rank, log_prob);
  return cudaGetLastError();
}

cudaError_t plackett_luce_log_prob_backward(
    const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
    int64_t num_samples, const int64_t* order, int32_t* rank, double* log_shares, float* grad_logits,
    cudaStream_t stream) {
  if (batch.num_tokens == 0) return cudaSuccess;
  const int64_t blocks = num_samples * batch.num_videos;
  if (blocks > kMaxGrid) return cudaErrorInvalidConfiguration;
  if (blocks > 0) {
    SCORE_LAUNCH(
        sum_shares, grid_size(blocks), kThreads, 0, stream, logits, batch, keep, total_keep, order, rank, log_shares);
    if (cudaError_t error = cudaGetLastError()) return error;
  }
  SCORE_LAUNCH(
      gradient, grid_size(ceil_div(batch.num_tokens, kThreads)), kThreads, 0, stream, grad, logits, batch, total_keep,
      num_samples, rank, log_shares, grad_logits);
  return cudaGetLastError();
}

}  // namespace score::cuda
