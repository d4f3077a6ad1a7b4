// Systematic selection within one video, by one team; score/systematic.h has the rule. Sums are integers, so they come
// out the same as on the CPU whatever their order.
#pragma once

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "score/systematic.h"
#include "team.cuh"

namespace score::cuda {

constexpr int kSystematicItems = 4;
constexpr int kSystematicTile = kTeamThreads * kSystematicItems;

// What one pass over a video's logits finds out, and how many of every stride-th token are finite.
struct LogitSums {
  LogitSummary summary;
  int64_t sampled;
};

// Sums over tokens of their probability and its slope in fixed point.
struct ProbabilitySums {
  int64_t probability;
  int64_t slope;
};

// What lies before a token: the sum of probabilities in the marginal class, and how many tokens are kept for certain.
struct WalkSums {
  int64_t probability;
  int64_t certain;
};

struct AddParts {
  __device__ ProbabilitySums operator()(const ProbabilitySums& a, const ProbabilitySums& b) const {
    return {a.probability + b.probability, a.slope + b.slope};
  }
  __device__ WalkSums operator()(const WalkSums& a, const WalkSums& b) const {
    return {a.probability + b.probability, a.certain + b.certain};
  }
  __device__ LogitSums operator()(const LogitSums& a, const LogitSums& b) const {
    const LogitSummary &x = a.summary, &y = b.summary;
    return {
        {x.certain + y.certain, x.finite + y.finite, x.min < y.min ? x.min : y.min, x.max > y.max ? x.max : y.max},
        a.sampled + b.sampled};
  }
};

// What a team's blocks tell each other, in arrays [size]. Not there, null, for a team of one.
struct SystematicExchange {
  LogitSums* logits;
  // Of passes in turn: a block can be in the next one before others have read this one's.
  ProbabilitySums *even, *odd;

  __device__ ProbabilitySums* sums(uint32_t pass) const { return pass % 2 == 0 ? even : odd; }
};

// Of all teams of a grid, [blocks of the grid]: exchange() is one team's.
struct SystematicExchanges {
  LogitSums* logits;
  ProbabilitySums *even, *odd;

  static SystematicExchanges take(Workspace& workspace, int64_t, int64_t num_blocks) {
    return {
        workspace.take<LogitSums>(num_blocks), workspace.take<ProbabilitySums>(num_blocks),
        workspace.take<ProbabilitySums>(num_blocks)};
  }

  __device__ SystematicExchange exchange(int64_t, int rank) const {
    const int64_t first = static_cast<int64_t>(blockIdx.x) - rank;
    return {logits + first, even + first, odd + first};
  }
};

struct SystematicStorage {
  using LogitReduce = cub::BlockReduce<LogitSums, kTeamThreads>;
  using WarpSum = cub::WarpReduce<int64_t>;
  using WalkReduce = cub::BlockReduce<WalkSums, kTeamThreads>;
  using WalkScan = cub::BlockScan<WalkSums, kTeamThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  union {
    LogitReduce::TempStorage logit_reduce;
    WarpSum::TempStorage warp_reduce[kTeamThreads / 32];
    WalkReduce::TempStorage walk_reduce;
    WalkScan::TempStorage walk_scan;
  };
  ProbabilitySums warp_sums[kTeamThreads / 32];
  LogitSums logits;
  ProbabilitySums sums;
  WalkSums before;
  float shift;
  bool is_solved;
};

__device__ inline LogitSums no_logits() { return {{0, 0, bits_float(0x7F800000u), bits_float(0xFF800000u)}, 0}; }

// The selection of one team. All functions are called by all threads of its blocks.
class SystematicSelection {
 public:
  __device__ SystematicSelection(
      const float* logits, int64_t length, Team& team, const SystematicExchange& exchange, SystematicStorage& storage)
      : logits_(logits),
        length_(length),
        span_(team.span(length)),
        stride_(static_cast<uint32_t>(length / kStartTokens)),
        pass_(0),
        team_(team),
        exchange_(exchange),
        storage_(storage) {}

  // Calls emit(position, i) for each of the video's `keep` tokens i that are kept and lie in this block's span,
  // position counting the video's in ascending order.
  template <typename Emit>
  __device__ void run(int64_t keep, double offset, Emit emit) {
    summarize();
    const LogitSummary summary = storage_.logits.summary;
    const Marginal marginal = marginal_class(summary, length_, keep);
    const bool has_shift = marginal.needs_shift();
    const float shift = has_shift ? find_shift(summary, marginal.keep) : 0.0f;
    const Thresholds thresholds(has_shift ? storage_.sums.probability : marginal.size * kOne, marginal.keep, offset);
    walk(keep, marginal, has_shift, shift, thresholds, sums_before(marginal, has_shift), emit);
  }

 private:
  __device__ void summarize() {
    LogitSums own = no_logits();
#pragma unroll 4
    for (uint32_t i = span_.begin + threadIdx.x; i < span_.end; i += kTeamThreads) {
      const float logit = __ldg(logits_ + i);
      const int32_t klass = logit_class(logit);
      const bool is_finite = klass == kFinite;
      LogitSums one = no_logits();
      one.summary.certain = klass == kCertain;
      one.summary.finite = is_finite;
      if (is_finite) one.summary.min = one.summary.max = logit;
      one.sampled = is_finite && stride_ > 1 && i % stride_ == 0;
      own = AddParts()(own, one);
    }
    LogitSums all = SystematicStorage::LogitReduce(storage_.logit_reduce).Reduce(own, AddParts());
    if (team_.size() > 1) {
      if (threadIdx.x == 0) exchange_.logits[team_.rank()] = all;
      team_.sync();
      all = combine<SystematicStorage::LogitReduce>(
          exchange_.logits, team_.size(), no_logits(), AddParts(), storage_.logit_reduce);
    }
    if (threadIdx.x == 0) storage_.logits = all;
    __syncthreads();
  }

  // Of a warp's threads, called by all of them; the result is the first one's. A pass is short: that 32 warps' sums are
  // added by a warp, not one after the other by a thread as in a BlockReduce, shows.
  __device__ ProbabilitySums sum_warp(const ProbabilitySums& own) {
    SystematicStorage::WarpSum sum(storage_.warp_reduce[threadIdx.x / 32]);
    const int64_t probability = sum.Sum(own.probability);
    __syncwarp();
    return {probability, sum.Sum(own.slope)};
  }

  // Over the finite ones of every stride-th token of the video; the result is thread 0's.
  __device__ ProbabilitySums sum_probabilities(uint32_t stride, float shift) {
    ProbabilitySums own{0, 0};
    const uint32_t first = (span_.begin + stride - 1) / stride * stride;
    // 32 bits hold every i: of 2^31 tokens, kTeamThreads * stride is an eighth.
#pragma unroll 4
    for (uint32_t i = first + threadIdx.x * stride; i < span_.end; i += kTeamThreads * stride) {
      const float logit = __ldg(logits_ + i);
      const int32_t probability = logit_class(logit) == kFinite ? sigmoid_fixed(add_rn(logit, shift)) : 0;
      own = AddParts()(own, {probability, slope_fixed(probability)});
    }
    ProbabilitySums all = sum_warp(own);
    if (threadIdx.x % 32 == 0) storage_.warp_sums[threadIdx.x / 32] = all;
    __syncthreads();
    if (threadIdx.x < 32) all = sum_warp(storage_.warp_sums[threadIdx.x]);
    if (team_.size() > 1) {
      ProbabilitySums* const slots = exchange_.sums(++pass_);
      if (threadIdx.x == 0) slots[team_.rank()] = all;
      team_.sync();
      if (threadIdx.x < 32) {
        own = {0, 0};
        for (int r = static_cast<int>(threadIdx.x); r < team_.size(); r += 32) own = AddParts()(own, slots[r]);
        all = sum_warp(own);
      }
    }
    return all;
  }

  // Leaves the sums of the last pass in the storage; `is_exact`: they have to be those of the shift that is returned.
  __device__ float solve(ShiftSolver solver, uint32_t stride, bool is_exact) {
    float shift = solver.shift();
    for (bool is_solved = false;;) {
      const ProbabilitySums sums = sum_probabilities(stride, shift);
      if (threadIdx.x == 0) {  // double division is slow on many devices: one thread does it
        storage_.is_solved = is_solved || solver.update(sums.probability, sums.slope);
        storage_.shift = is_solved ? shift : solver.shift();
        storage_.sums = sums;
      }
      __syncthreads();
      if (is_solved) return shift;
      const bool is_same = storage_.shift == shift;
      is_solved = storage_.is_solved;
      shift = storage_.shift;
      if (is_solved && (is_same || !is_exact)) return shift;
      __syncthreads();
    }
  }

  // The shift that makes the finite tokens' probabilities sum to `keep`, started from the one that fits a subsample.
  __device__ float find_shift(const LogitSummary& summary, int64_t keep) {
    const int64_t target = keep * kOne;
    float start = ShiftSolver::middle_start();
    if (stride_ > 1) {
      const double share = div_rn(static_cast<double>(target), static_cast<double>(summary.finite));
      const int64_t part = static_cast<int64_t>(mul_rn(share, static_cast<double>(storage_.logits.sampled)));
      if (part > 0) {
        start = solve(ShiftSolver(summary.min, summary.max, part, kStartPrecision, start), stride_, false);
        __syncthreads();
      }
    }
    return solve(ShiftSolver(summary.min, summary.max, target, kShiftPrecision, start), 1, true);
  }

  // Of the blocks before this one, as the walk counts their tokens; probabilities are those of the last pass.
  __device__ WalkSums sums_before(const Marginal& marginal, bool has_shift) {
    if (team_.rank() == 0) return {0, 0};
    WalkSums own{0, 0};
    for (int r = static_cast<int>(threadIdx.x); r < team_.rank(); r += kTeamThreads) {
      const LogitSummary& summary = exchange_.logits[r].summary;
      WalkSums one{summary.certain * kOne, 0};
      if (marginal.klass == kFinite) {
        one = {has_shift ? exchange_.sums(pass_)[r].probability : summary.finite * kOne, summary.certain};
      } else if (marginal.klass == kNever) {
        one = {-(summary.certain + summary.finite) * kOne, summary.certain + summary.finite};
      }
      own = AddParts()(own, one);
    }
    __syncthreads();
    own = SystematicStorage::WalkReduce(storage_.walk_reduce).Reduce(own, AddParts());
    if (marginal.klass == kNever) own.probability += static_cast<int64_t>(span_.begin) * kOne;
    if (threadIdx.x == 0) storage_.before = own;
    __syncthreads();
    return storage_.before;
  }

  template <typename Emit>
  __device__ void walk(
      int64_t keep, const Marginal& marginal, bool has_shift, float shift, const Thresholds& thresholds,
      WalkSums before, Emit emit) {
    for (uint32_t tile = span_.begin; tile < span_.end; tile += kSystematicTile) {
      if (before.certain + thresholds.passed(before.probability) >= keep) break;
      const uint32_t first_token = tile + threadIdx.x * kSystematicItems;
      WalkSums own[kSystematicItems], own_sum{0, 0}, here, all;
#pragma unroll
      for (int i = 0; i < kSystematicItems; ++i) {
        own[i] = {0, 0};
        if (first_token + i >= span_.end) continue;
        const float logit = __ldg(logits_ + first_token + i);
        const int32_t klass = logit_class(logit);
        if (klass < marginal.klass) own[i].certain = 1;
        if (klass == marginal.klass) own[i].probability = has_shift ? sigmoid_fixed(add_rn(logit, shift)) : kOne;
        own_sum = AddParts()(own_sum, own[i]);
      }
      __syncthreads();
      SystematicStorage::WalkScan(storage_.walk_scan).ExclusiveScan(own_sum, here, WalkSums{0, 0}, AddParts(), all);
      here = AddParts()(before, here);
      // No probability is beyond the distance of two thresholds, so that a token passes one at most.
      int64_t passed = thresholds.passed(here.probability);
      int64_t next = thresholds.threshold(passed);
#pragma unroll
      for (int i = 0; i < kSystematicItems; ++i) {
        here.probability += own[i].probability;
        const bool passes = passed < thresholds.keep() && here.probability > next;
        if (passes || own[i].certain > 0) emit(here.certain + passed, first_token + i);
        here.certain += own[i].certain;
        if (passes) {
          ++passed;
          next = thresholds.threshold(passed);
        }
      }
      before = AddParts()(before, all);
    }
  }

  const float* logits_;
  int64_t length_;
  Span span_;
  uint32_t stride_;
  uint32_t pass_;
  Team& team_;
  const SystematicExchange& exchange_;
  SystematicStorage& storage_;
};

}  // namespace score::cuda
