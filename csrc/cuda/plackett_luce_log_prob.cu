// plackett_luce_log_prob: the log-probability of drawing rows in an order without replacement, and its gradient.
//
//   log P = sum_j [ l_j - log Z_j ],   Z_j = sum of exp(l_i) over the tokens of the video not drawn before step j
//   d log P / d l_i = [i drawn] - exp(l_i) * sum of 1 / Z_j over the steps up to i's own, or up to the last one
//
// Z_j is summed backwards from the tokens never drawn and 1 / Z_j forwards, both as logarithms in double: positive
// terms are added and nothing cancels, however sure the policy is.
//
// A video of each sample falls into parts, a block each, in five kernels one after the other; where one part is all, a
// block does everything in one. Measured on an H200 in a CUDA graph as what gumbel_topk_with_log_prob takes beyond
// gumbel_topk, 8 samples of one video, a tenth drawn: 40,000 tokens 31 us, a million 150.
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "kernels.h"
#include "launch.cuh"
#include "parts.cuh"
#include "team.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kTokensPerPart = 1024;

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
  LogSum all;
};

// All functions below are called by all threads of a block.

__device__ LogSum reduce_to_all(const LogSum& own, Storage& storage) {
  __syncthreads();
  const LogSum all = Storage::Reduce(storage.reduce).Reduce(own, AddLogSums());
  if (threadIdx.x == 0) storage.all = all;
  __syncthreads();
  return storage.all;
}

// A video of a sample: logits and rank [num_tokens], order [kept.size] its rows in the order of drawing.
struct Task {
  const float* logits;
  VideoRange range;
  KeptRange kept;
  const int64_t* order;
  int32_t* rank;

  __device__ Task(
      const float* logits, const PackedBatch& batch, const KeptRange& kept, int64_t total_keep, const int64_t* order,
      int32_t* rank, int64_t number)
      : logits(logits),
        range(video_range(batch, number % batch.num_videos)),
        kept(kept),
        order(order + number / batch.num_videos * total_keep + kept.begin),
        rank(rank + number / batch.num_videos * batch.num_tokens) {}

  __device__ int64_t row_of(int64_t step) const {
    const int64_t row = order[step];
    return row < range.begin ? range.begin : (row < range.end ? row : range.end - 1);
  }
};

// The part-th of `parts` of 0 .. length.
struct Part {
  int64_t begin, end;
  __device__ Part(int64_t length, int64_t part, int64_t parts) {
    const int64_t each = ceil_div(length, parts);
    begin = part * each < length ? part * each : length;
    end = begin + each < length ? begin + each : length;
  }
};

__device__ void clear_ranks(const Task& task, const Part& part) {
  const int32_t last = task.kept.size > 0 ? static_cast<int32_t>(task.kept.begin + task.kept.size - 1) : 0;
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += kThreads) {
    task.rank[task.range.begin + i] = task.kept.size > 0 ? ~last : kNoStep;
  }
}

__device__ void mark_steps(const Task& task, const Part& part) {
  for (int64_t j = part.begin + threadIdx.x; j < part.end; j += kThreads) {
    task.rank[task.row_of(j)] = static_cast<int32_t>(task.kept.begin + j);
  }
}

// Of a thread's tokens that are not drawn. Not a number where a token of either kind has no probability.
__device__ LogSum sum_rest(const Task& task, const Part& part) {
  LogSum own = kNothing;
  for (int64_t i = task.range.begin + part.begin + threadIdx.x; i < task.range.begin + part.end; i += kThreads) {
    const float logit = task.logits[i];
    if (!(logit < INFINITY)) own.sum = NAN;
    if (task.rank[i] < 0) own = AddLogSums()(own, {logit, 1.0});
  }
  return own;
}

// Steps part.begin .. part.end, `after` what is left once they are done. Calls emit(j, log Z_j) for each of them and
// returns this thread's share of log P.
template <typename Emit>
__device__ double walk_steps(const Task& task, const Part& part, LogSum after, Storage& storage, Emit emit) {
  const bool is_nan = after.sum != after.sum;
  double log_prob = 0.0;
  for (int64_t tile_end = part.end; tile_end > part.begin; tile_end -= kThreads) {
    const int64_t j = tile_end - 1 - threadIdx.x;
    const bool exists = j >= part.begin;
    const double logit = exists ? task.logits[task.row_of(j)] : 0.0;
    LogSum remaining = exists ? LogSum{logit, 1.0} : kNothing, tile;
    __syncthreads();
    Storage::Scan(storage.scan).InclusiveScan(remaining, remaining, AddLogSums(), tile);
    if (exists) {
      const double log_z = is_nan ? NAN : log_of(AddLogSums()(after, remaining));
      log_prob += logit == -INFINITY && !is_nan ? logit : logit - log_z;
      emit(j, log_z);
    }
    after = AddLogSums()(after, tile);
  }
  return log_prob;
}

// steps [kept.size] of log Z_j become log of the sum of 1 / Z_j' over the steps j' up to j; `before`: over those before
// the part's.
__device__ void sum_shares(double* steps, const Part& part, LogSum before, Storage& storage) {
  for (int64_t tile = part.begin; tile < part.end; tile += kThreads) {
    const int64_t j = tile + threadIdx.x;
    LogSum share = j < part.end ? LogSum{-steps[j], 1.0} : kNothing, all;
    __syncthreads();
    Storage::Scan(storage.scan).InclusiveScan(share, share, AddLogSums(), all);
    if (j < part.end) steps[j] = log_of(AddLogSums()(before, share));
    before = AddLogSums()(before, all);
  }
}

// ---- a block per video of a sample, for short videos and many -------------------------------------------------------

// log_prob [num_samples, num_videos], or, where log_shares [num_samples, total_keep] is given, those instead.
__global__ void __launch_bounds__(kThreads) log_prob_by_block(
    const float* logits, PackedBatch batch, const int32_t* keep, int64_t total_keep, const int64_t* order,
    int32_t* rank, float* log_prob, double* log_shares) {
  __shared__ KeptStorage<kThreads> kept_storage;
  __shared__ Storage storage;
  const int64_t video = blockIdx.x % batch.num_videos, sample = blockIdx.x / batch.num_videos;
  const KeptRange kept = kept_range<kThreads>(batch, keep, total_keep, video, kept_storage);
  const Task task(logits, batch, kept, total_keep, order, rank, blockIdx.x);
  const Part tokens(task.range.length(), 0, 1), steps(kept.size, 0, 1);
  double* const shares = log_shares == nullptr ? nullptr : log_shares + sample * total_keep + kept.begin;
  clear_ranks(task, tokens);
  __syncthreads();
  double own = 0.0;
  if (kept.size > 0) {
    mark_steps(task, steps);
    __syncthreads();
    const LogSum rest = reduce_to_all(sum_rest(task, tokens), storage);
    own = walk_steps(task, steps, rest, storage, [shares](int64_t j, double log_z) {
      if (shares != nullptr) shares[j] = log_z;
    });
    __syncthreads();
  }
  if (shares != nullptr) {
    sum_shares(shares, steps, kNothing, storage);
    return;
  }
  const double sum = Storage::Sum(storage.sum).Sum(own);
  if (threadIdx.x == 0) log_prob[blockIdx.x] = static_cast<float>(sum);
}

// ---- parts of a video, a block each, in one kernel after the other --------------------------------------------------

// What parts leave for the kernels behind; arrays [num_samples * num_videos, parts].
struct Partial {
  int64_t parts;
  LogSum* rest;    // of tokens not drawn
  LogSum* drawn;   // of the steps' tokens
  LogSum* shares;  // of the steps' 1 / Z_j
  double* log_prob;
};

enum class Stage { kClear, kMark, kSum, kWalk, kShares };

// One stage of all parts: block `task * parts + part`.
template <Stage kStage>
__global__ void __launch_bounds__(kThreads) run_stage(
    const float* logits, PackedBatch batch, const int32_t* keep, int64_t total_keep, const int64_t* order,
    int32_t* rank, double* log_shares, Partial partial) {
  __shared__ KeptStorage<kThreads> kept_storage;
  __shared__ Storage storage;
  const int64_t number = blockIdx.x / partial.parts, part = blockIdx.x % partial.parts;
  const int64_t video = number % batch.num_videos, sample = number / batch.num_videos;
  const KeptRange kept = kept_range<kThreads>(batch, keep, total_keep, video, kept_storage);
  const Task task(logits, batch, kept, total_keep, order, rank, number);
  const Part tokens(task.range.length(), part, partial.parts), steps(kept.size, part, partial.parts);
  double* const shares = log_shares == nullptr ? nullptr : log_shares + sample * total_keep + kept.begin;
  const int64_t first = number * partial.parts;
  // What parts begin .. end left together.
  const auto combined = [&](const LogSum* array, int64_t begin, int64_t end) {
    LogSum own = kNothing;
    for (int64_t p = begin + threadIdx.x; p < end; p += kThreads) own = AddLogSums()(own, array[first + p]);
    return own;
  };
  if constexpr (kStage == Stage::kClear) clear_ranks(task, tokens);
  if constexpr (kStage == Stage::kMark) mark_steps(task, steps);
  if constexpr (kStage == Stage::kSum) {
    const LogSum rest = reduce_to_all(sum_rest(task, tokens), storage);
    LogSum own = kNothing;
    for (int64_t j = steps.begin + threadIdx.x; j < steps.end; j += kThreads) {
      own = AddLogSums()(own, {task.logits[task.row_of(j)], 1.0});
    }
    const LogSum drawn = reduce_to_all(own, storage);
    if (threadIdx.x == 0) {
      partial.rest[blockIdx.x] = rest;
      partial.drawn[blockIdx.x] = drawn;
    }
  }
  if constexpr (kStage == Stage::kWalk) {
    const LogSum rest = combined(partial.rest, 0, partial.parts);
    const LogSum drawn = combined(partial.drawn, part + 1, partial.parts);
    const LogSum after = reduce_to_all(AddLogSums()(rest, drawn), storage);
    LogSum own = kNothing;
    const double log_prob = walk_steps(task, steps, after, storage, [&](int64_t j, double log_z) {
      if (shares == nullptr) return;
      shares[j] = log_z;
      own = AddLogSums()(own, {-log_z, 1.0});
    });
    __syncthreads();
    const double sum = Storage::Sum(storage.sum).Sum(log_prob);
    const LogSum share = reduce_to_all(own, storage);
    if (threadIdx.x == 0) {
      partial.log_prob[blockIdx.x] = sum;
      partial.shares[blockIdx.x] = share;
    }
  }
  if constexpr (kStage == Stage::kShares) {
    sum_shares(shares, steps, reduce_to_all(combined(partial.shares, 0, part), storage), storage);
  }
}

// A block per video of a sample.
__global__ void __launch_bounds__(kThreads) add_log_probs(Partial partial, float* log_prob) {
  __shared__ Storage storage;
  double own = 0.0;
  for (int64_t p = threadIdx.x; p < partial.parts; p += kThreads) {
    own += partial.log_prob[blockIdx.x * partial.parts + p];
  }
  const double sum = Storage::Sum(storage.sum).Sum(own);
  if (threadIdx.x == 0) log_prob[blockIdx.x] = static_cast<float>(sum);
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

Partial take_partial(Workspace& workspace, const PackedBatch& batch, int64_t num_samples) {
  const int64_t parts = count_parts(batch, num_samples, batch.num_tokens, kTokensPerPart);
  const int64_t count = parts > 1 ? num_samples * batch.num_videos * parts : 0;
  return {
      parts, workspace.take<LogSum>(count), workspace.take<LogSum>(count), workspace.take<LogSum>(count),
      workspace.take<double>(count)};
}

// log_prob, or log_shares where those are given.
cudaError_t launch(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, int32_t* rank, float* log_prob, double* log_shares, void* memory, cudaStream_t stream) {
  const int64_t tasks = num_samples * batch.num_videos;
  if (tasks == 0) return cudaSuccess;
  if (tasks > kMaxGrid) return cudaErrorInvalidConfiguration;
  Workspace workspace(memory);
  const Partial partial = take_partial(workspace, batch, num_samples);
  if (partial.parts == 1) {
    SCORE_LAUNCH(
        log_prob_by_block, grid_size(tasks), kThreads, 0, stream, logits, batch, keep, total_keep, order, rank,
        log_prob, log_shares);
    return cudaGetLastError();
  }
  const auto run = [&](auto stage) {
    SCORE_LAUNCH(
        stage, grid_size(tasks * partial.parts), kThreads, 0, stream, logits, batch, keep, total_keep, order, rank,
        log_shares, partial);
    return cudaGetLastError();
  };
  if (cudaError_t error = run(run_stage<Stage::kClear>)) return error;
  if (cudaError_t error = run(run_stage<Stage::kMark>)) return error;
  if (cudaError_t error = run(run_stage<Stage::kSum>)) return error;
  if (cudaError_t error = run(run_stage<Stage::kWalk>)) return error;
  if (log_shares != nullptr) return run(run_stage<Stage::kShares>);
  SCORE_LAUNCH(add_log_probs, grid_size(tasks), kThreads, 0, stream, partial, log_prob);
  return cudaGetLastError();
}

}  // namespace

size_t plackett_luce_workspace(const PackedBatch& batch, int64_t num_samples) {
  Workspace workspace(nullptr);
  take_partial(workspace, batch, num_samples);
  return workspace.bytes();
}

cudaError_t plackett_luce_log_prob(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, int32_t* rank, float* log_prob, void* workspace, cudaStream_t stream) {
  return launch(logits, batch, keep, total_keep, num_samples, order, rank, log_prob, nullptr, workspace, stream);
}

cudaError_t plackett_luce_log_prob_backward(
    const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
    int64_t num_samples, const int64_t* order, int32_t* rank, double* log_shares, float* grad_logits, void* workspace,
    cudaStream_t stream) {
  if (batch.num_tokens == 0) return cudaSuccess;
  if (cudaError_t error =
          launch(logits, batch, keep, total_keep, num_samples, order, rank, nullptr, log_shares, workspace, stream)) {
    return error;
  }
  SCORE_LAUNCH(
      gradient, grid_size(ceil_div(batch.num_tokens, kThreads)), kThreads, 0, stream, grad, logits, batch, total_keep,
      num_samples, rank, log_shares, grad_logits);
  return cudaGetLastError();
}

}  // namespace score::cuda
