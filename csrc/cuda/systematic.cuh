// Systematic selection within one video, by one block; score/systematic.h has the rule. Sums are integers, so they come
// out the same as on the CPU whatever their order.
#pragma once

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "score/systematic.h"

namespace score::cuda {

constexpr int kSystematicThreads = 1024;
constexpr int kSystematicItems = 4;
constexpr int kSystematicTile = kSystematicThreads * kSystematicItems;

// Sums over tokens of their probability and its slope in fixed point, and how many tokens there were.
struct ProbabilitySums {
  int64_t probability;
  int64_t slope;
  int64_t tokens;
};

// What lies before a token: the sum of probabilities in the marginal class, and how many tokens are kept for certain.
struct WalkSums {
  int64_t probability;
  int64_t certain;
};

struct AddParts {
  __device__ ProbabilitySums operator()(const ProbabilitySums& a, const ProbabilitySums& b) const {
    return {a.probability + b.probability, a.slope + b.slope, a.tokens + b.tokens};
  }
  __device__ WalkSums operator()(const WalkSums& a, const WalkSums& b) const {
    return {a.probability + b.probability, a.certain + b.certain};
  }
  __device__ LogitSummary operator()(const LogitSummary& a, const LogitSummary& b) const {
    return {a.certain + b.certain, a.finite + b.finite, a.min < b.min ? a.min : b.min, a.max > b.max ? a.max : b.max};
  }
};

struct SystematicStorage {
  using SummaryReduce = cub::BlockReduce<LogitSummary, kSystematicThreads>;
  using SumsReduce = cub::BlockReduce<ProbabilitySums, kSystematicThreads>;
  using WalkScan = cub::BlockScan<WalkSums, kSystematicThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  union {
    SummaryReduce::TempStorage summary_reduce;
    SumsReduce::TempStorage sums_reduce;
    WalkScan::TempStorage walk_scan;
  };
  LogitSummary summary;
  ProbabilitySums sums;
};

// All functions below are called by all threads of the block and give all of them the same result.

__device__ inline LogitSummary summarize(const float* logits, int64_t length, SystematicStorage& storage) {
  LogitSummary own{0, 0, bits_float(0x7F800000u), bits_float(0xFF800000u)};
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < length; i += kSystematicThreads) {
    const float logit = __ldg(logits + i);
    const int32_t klass = logit_class(logit);
    own = AddParts()(
        own, klass == kFinite ? LogitSummary{0, 1, logit, logit}
                              : LogitSummary{klass == kCertain, 0, bits_float(0x7F800000u), bits_float(0xFF800000u)});
  }
  const LogitSummary all = SystematicStorage::SummaryReduce(storage.summary_reduce).Reduce(own, AddParts());
  if (threadIdx.x == 0) storage.summary = all;
  __syncthreads();
  return storage.summary;
}

// Over the finite ones of every stride-th token.
__device__ inline ProbabilitySums sum_probabilities(
    const float* logits, int64_t length, int64_t stride, float shift, SystematicStorage& storage) {
  ProbabilitySums own{0, 0, 0};
#pragma unroll 4
  for (int64_t i = threadIdx.x * stride; i < length; i += kSystematicThreads * stride) {
    const float logit = __ldg(logits + i);
    const bool is_finite = logit_class(logit) == kFinite;
    const int32_t probability = is_finite ? sigmoid_fixed(add_rn(logit, shift)) : 0;
    own = AddParts()(own, {probability, slope_fixed(probability), is_finite});
  }
  __syncthreads();
  const ProbabilitySums all = SystematicStorage::SumsReduce(storage.sums_reduce).Reduce(own, AddParts());
  if (threadIdx.x == 0) storage.sums = all;
  __syncthreads();
  return storage.sums;
}

__device__ inline float solve(
    ShiftSolver solver, const float* logits, int64_t length, int64_t stride, SystematicStorage& storage) {
  for (;;) {
    const ProbabilitySums sums = sum_probabilities(logits, length, stride, solver.shift(), storage);
    if (solver.update(sums.probability, sums.slope)) return solver.shift();
  }
}

// The shift that makes the finite tokens' probabilities sum to `keep`, started from the one that fits a subsample.
__device__ inline float find_shift(
    const float* logits, int64_t length, const LogitSummary& summary, int64_t keep, SystematicStorage& storage) {
  const int64_t target = keep * kOne;
  const int64_t stride = length / kStartTokens;
  float start = ShiftSolver::middle_start();
  if (stride > 1) {
    const int64_t tokens = sum_probabilities(logits, length, stride, 0.0f, storage).tokens;
    const double share = div_rn(static_cast<double>(target), static_cast<double>(summary.finite));
    const int64_t part = static_cast<int64_t>(mul_rn(share, static_cast<double>(tokens)));
    if (part > 0) {
      const ShiftSolver solver(summary.min, summary.max, part, kStartPrecision, start);
      start = solve(solver, logits, length, stride, storage);
    }
  }
  return solve(ShiftSolver(summary.min, summary.max, target, kShiftPrecision, start), logits, length, 1, storage);
}

// Calls emit(position, i) for each of the `keep` tokens i that are kept, position counting them in ascending order.
template <typename Emit>
__device__ void systematic_rows(
    const float* logits, int64_t length, int64_t keep, double offset, SystematicStorage& storage, Emit emit) {
  const LogitSummary summary = summarize(logits, length, storage);
  const Marginal marginal = marginal_class(summary, length, keep);
  const bool has_shift = marginal.needs_shift();
  const float shift = has_shift ? find_shift(logits, length, summary, marginal.keep, storage) : 0.0f;
  const int64_t total =
      has_shift ? sum_probabilities(logits, length, 1, shift, storage).probability : marginal.size * kOne;
  const Thresholds thresholds(total, marginal.keep, offset);

  const auto kept_of = [&](const WalkSums& sums) { return sums.certain + thresholds.passed(sums.probability); };
  WalkSums before{0, 0};
  for (int64_t tile = 0; tile < length && kept_of(before) < keep; tile += kSystematicTile) {
    WalkSums own[kSystematicItems], sums[kSystematicItems], all;
#pragma unroll
    for (int i = 0; i < kSystematicItems; ++i) {
      const int64_t at = tile + static_cast<int64_t>(threadIdx.x) * kSystematicItems + i;
      own[i] = {0, 0};
      if (at >= length) continue;
      const float logit = __ldg(logits + at);
      const int32_t klass = logit_class(logit);
      if (klass < marginal.klass) own[i].certain = 1;
      if (klass == marginal.klass) own[i].probability = has_shift ? sigmoid_fixed(add_rn(logit, shift)) : kOne;
    }
    __syncthreads();
    SystematicStorage::WalkScan(storage.walk_scan).ExclusiveScan(own, sums, WalkSums{0, 0}, AddParts(), all);
#pragma unroll
    for (int i = 0; i < kSystematicItems; ++i) {
      const WalkSums here = AddParts()(before, sums[i]);
      const int64_t position = kept_of(here);
      if (kept_of(AddParts()(here, own[i])) > position) {
        emit(position, tile + static_cast<int64_t>(threadIdx.x) * kSystematicItems + i);
      }
    }
    before = AddParts()(before, all);
  }
}

}  // namespace score::cuda
