// The k highest ranks of one video, found by one team: a radix search for the k-th rank, then a stable compaction.
//
// Ranks are read again in every pass rather than kept; a block's part of them fits its L1 cache or comes from L2.
#pragma once

#include <cstdint>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "team.cuh"

namespace score::cuda {

constexpr int kSearchItems = 8;  // ranks per thread on their way at once, in the search
constexpr int kTopkItems = 4;    // and in the compaction, which has more to hold for each
constexpr int kTopkTile = kTeamThreads * kTopkItems;
constexpr int kDigitBits = 11;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kDigitPasses = 3;  // over the 32 bits of a rank

// What is kept: ranks above `rank`, and the first `ties` of those equal to it.
struct Threshold {
  uint32_t rank;
  uint32_t ties;
};

// What a team's blocks tell each other. Not there, null, for a team of one.
struct TopkExchange {
  int32_t* histograms;  // [kDigitPasses, kDigits], the first one cleared
  uint64_t* counts;     // [size]
};

// Of all teams of a grid: exchange() is one team's.
struct TopkExchanges {
  int32_t* histograms;  // [num_teams, kDigitPasses, kDigits]
  uint64_t* counts;     // [blocks of the grid]

  static TopkExchanges take(Workspace& workspace, int64_t num_teams, int64_t num_blocks) {
    return {workspace.take<int32_t>(num_teams * kDigitPasses * kDigits), workspace.take<uint64_t>(num_blocks)};
  }

  __device__ TopkExchange exchange(int64_t team, int rank) const {
    return {histograms + team * kDigitPasses * kDigits, counts + blockIdx.x - rank};
  }
};

struct TopkStorage {
  using DigitScan = cub::BlockScan<int32_t, kTeamThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  using RankScan = cub::BlockScan<uint64_t, kTeamThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  using RankReduce = cub::BlockReduce<uint64_t, kTeamThreads>;
  union {
    DigitScan::TempStorage digit_scan;
    RankScan::TempStorage rank_scan;
    RankReduce::TempStorage rank_reduce;
  };
  int32_t histogram[kDigits];
  uint32_t digit;
  int32_t remaining;
  bool is_complete;
  uint64_t before;
};

// rank_at(i) is the rank of token i of the video; 0 < keep <= the video's length. Called by all threads of the team.
template <typename RankAt>
__device__ Threshold find_threshold(
    RankAt rank_at, Span span, int64_t keep, Team& team, const TopkExchange& exchange, TopkStorage& storage) {
  const uint32_t thread = threadIdx.x;
  uint32_t found = 0, found_mask = 0;  // the leading bits of the k-th rank
  int32_t remaining = static_cast<int32_t>(keep);
  // Of the histograms in global memory the later ones are cleared here, long before the first barrier.
  if (team.size() > 1 && team.rank() == 0) {
    for (int i = kDigits + static_cast<int>(thread); i < kDigitPasses * kDigits; i += kTeamThreads) {
      exchange.histograms[i] = 0;
    }
  }
  for (int pass = 0; pass < kDigitPasses; ++pass) {
    const int shift = pass == 0 ? 32 - kDigitBits : (pass == 1 ? 32 - 2 * kDigitBits : 0);
    for (int d = static_cast<int>(thread); d < kDigits; d += kTeamThreads) storage.histogram[d] = 0;
    __syncthreads();
    for (uint32_t tile = span.begin; tile < span.end; tile += kTeamThreads * kSearchItems) {
      uint32_t ranks[kSearchItems];
#pragma unroll
      for (int i = 0; i < kSearchItems; ++i) {
        const uint32_t at = tile + i * kTeamThreads + thread;
        ranks[i] = at < span.end ? rank_at(at) : 0;
      }
#pragma unroll
      for (int i = 0; i < kSearchItems; ++i) {
        const uint32_t at = tile + i * kTeamThreads + thread;
        // Scores crowd into few digits; the hardware adds up what a warp adds to one address (ATOMS.POPC.INC).
        if (at < span.end && (ranks[i] & found_mask) == found) {
          atomicAdd(&storage.histogram[(ranks[i] & ~found_mask) >> shift], 1);
        }
      }
    }
    __syncthreads();
    const int32_t* histogram = storage.histogram;
    if (team.size() > 1) {
      int32_t* const shared = exchange.histograms + pass * kDigits;
      for (int d = static_cast<int>(thread); d < kDigits; d += kTeamThreads) {
        if (storage.histogram[d] > 0) atomicAdd(&shared[d], storage.histogram[d]);
      }
      team.sync();
      histogram = shared;
    }
    // Two digits per thread, the highest first: the one at which the count from above reaches `remaining`.
    const int high = kDigits - 1 - 2 * static_cast<int>(thread);
    const int32_t in_high = histogram[high], in_low = histogram[high - 1];
    int32_t above;
    TopkStorage::DigitScan(storage.digit_scan).ExclusiveSum(in_high + in_low, above);
    if (above < remaining && remaining <= above + in_high + in_low) {
      const bool is_high = remaining <= above + in_high;
      storage.digit = static_cast<uint32_t>(is_high ? high : high - 1);
      storage.remaining = remaining - above - (is_high ? 0 : in_high);
      storage.is_complete = storage.remaining == (is_high ? in_high : in_low);
    }
    __syncthreads();
    found |= storage.digit << shift;
    found_mask = 0xFFFFFFFFu << shift;
    remaining = storage.remaining;
    // All of what begins with these bits is kept: nothing below `found` is, and nothing above is a tie too many.
    if (storage.is_complete) break;
  }
  return {found, found_mask == 0xFFFFFFFFu ? static_cast<uint32_t>(remaining) : 0xFFFFFFFFu};
}

// Calls emit(position, i, rank) for each token i of `span` that is kept, position counting the video's in ascending
// order.
template <typename RankAt, typename Emit>
__device__ void compact(
    RankAt rank_at, Span span, int64_t keep, Threshold threshold, Team& team, const TopkExchange& exchange,
    TopkStorage& storage, Emit emit) {
  // Counts of ranks above the threshold, and in the lower half of those equal to it.
  const auto counts_of = [&](uint32_t rank) {
    return rank > threshold.rank ? uint64_t{1} << 32 : uint64_t{rank == threshold.rank};
  };
  const auto kept_of = [&](uint64_t counts) {
    const uint32_t above = static_cast<uint32_t>(counts >> 32), equal = static_cast<uint32_t>(counts);
    return above + (equal < threshold.ties ? equal : threshold.ties);
  };
  uint64_t before = 0;
  if (team.size() > 1) {
    uint64_t own = 0;
    for (uint32_t at = span.begin + threadIdx.x; at < span.end; at += kTeamThreads) own += counts_of(rank_at(at));
    const auto add = [](uint64_t a, uint64_t b) { return a + b; };
    own = TopkStorage::RankReduce(storage.rank_reduce).Reduce(own, add);
    if (threadIdx.x == 0) exchange.counts[team.rank()] = own;
    team.sync();
    before = combine<TopkStorage::RankReduce>(exchange.counts, team.rank(), uint64_t{0}, add, storage.rank_reduce);
    if (threadIdx.x == 0) storage.before = before;
    __syncthreads();
    before = storage.before;
  }
  for (uint32_t tile = span.begin; tile < span.end && kept_of(before) < keep; tile += kTopkTile) {
    const uint32_t first = tile + threadIdx.x * kTopkItems;
    uint32_t ranks[kTopkItems];
    uint64_t own = 0, sum, total;
#pragma unroll
    for (int i = 0; i < kTopkItems; ++i) {
      ranks[i] = first + i < span.end ? rank_at(first + i) : 0;
      if (first + i < span.end) own += counts_of(ranks[i]);
    }
    TopkStorage::RankScan(storage.rank_scan).ExclusiveSum(own, sum, total);
    sum += before;
#pragma unroll
    for (int i = 0; i < kTopkItems; ++i) {
      if (first + i >= span.end) break;
      const uint64_t counts = counts_of(ranks[i]);
      const uint32_t position = kept_of(sum);
      sum += counts;
      if (kept_of(sum) > position) emit(position, first + i, ranks[i]);
    }
    before += total;
    __syncthreads();
  }
}

}  // namespace score::cuda
