// The k highest ranks of one video, found by one block: a radix search for the k-th rank, then a stable compaction.
//
// Ranks are read again in every pass rather than kept; a video's scores fit the L1 cache or come from L2.
#pragma once

#include <cstdint>
#include <cub/block/block_scan.cuh>

namespace score::cuda {

constexpr int kTopkThreads = 1024;
constexpr int kSearchItems = 8;  // ranks per thread on their way at once, in the search
constexpr int kTopkItems = 4;    // and in the compaction, which has more to hold for each
constexpr int kTopkTile = kTopkThreads * kTopkItems;
constexpr int kDigitBits = 11;  // three passes over the 32 bits of a rank
constexpr int kDigits = 1 << kDigitBits;

// What is kept: ranks above `rank`, and the first `ties` of those equal to it.
struct Threshold {
  uint32_t rank;
  int32_t ties;
};

struct TopkStorage {
  using DigitScan = cub::BlockScan<int32_t, kTopkThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  using RankScan = cub::BlockScan<uint64_t, kTopkThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  union {
    DigitScan::TempStorage digit_scan;
    RankScan::TempStorage rank_scan;
  };
  int32_t histogram[kDigits];
  uint32_t digit;
  int32_t remaining;
};

// Adds one to histogram[digit] where `counted`. Called by whole warps. Scores crowd into few exponents, so the lanes of
// a warp that hit the same digit send one of them.
__device__ inline void count_digit(int32_t* histogram, uint32_t digit, bool counted) {
  const uint32_t peers = __match_any_sync(0xFFFFFFFFu, counted ? digit : 0xFFFFFFFFu);
  const bool is_leader = (peers & ((1u << (threadIdx.x % 32)) - 1)) == 0;
  if (counted && is_leader) atomicAdd(&histogram[digit], __popc(peers));
}

// rank_at(i) is the rank of token i < length; 0 < keep <= length. Called by all threads of the block.
template <typename RankAt>
__device__ Threshold find_threshold(RankAt rank_at, int64_t length, int64_t keep, TopkStorage& storage) {
  const int thread = static_cast<int>(threadIdx.x);
  uint32_t found = 0, found_mask = 0;  // the leading bits of the k-th rank
  int32_t remaining = static_cast<int32_t>(keep);
  for (int shift = 32 - kDigitBits; found_mask != 0xFFFFFFFFu; shift = shift > kDigitBits ? shift - kDigitBits : 0) {
    for (int d = thread; d < kDigits; d += kTopkThreads) storage.histogram[d] = 0;
    __syncthreads();
    for (int64_t tile = 0; tile < length; tile += kTopkThreads * kSearchItems) {
      uint32_t ranks[kSearchItems];
#pragma unroll
      for (int i = 0; i < kSearchItems; ++i) {
        const int64_t at = tile + i * kTopkThreads + thread;
        ranks[i] = at < length ? rank_at(at) : 0;
      }
#pragma unroll
      for (int i = 0; i < kSearchItems; ++i) {
        const bool counted = tile + i * kTopkThreads + thread < length && (ranks[i] & found_mask) == found;
        count_digit(storage.histogram, (ranks[i] & ~found_mask) >> shift, counted);
      }
    }
    __syncthreads();
    // Two digits per thread, the highest first: the one at which the count from above reaches `remaining`.
    const int high = kDigits - 1 - 2 * thread;
    const int32_t in_high = storage.histogram[high], in_low = storage.histogram[high - 1];
    int32_t above;
    TopkStorage::DigitScan(storage.digit_scan).ExclusiveSum(in_high + in_low, above);
    if (above < remaining && remaining <= above + in_high + in_low) {
      const bool is_high = remaining <= above + in_high;
      storage.digit = static_cast<uint32_t>(is_high ? high : high - 1);
      storage.remaining = remaining - above - (is_high ? 0 : in_high);
    }
    __syncthreads();
    found |= storage.digit << shift;
    found_mask = 0xFFFFFFFFu << shift;
    remaining = storage.remaining;
  }
  return {found, remaining};
}

// Calls emit(position, i, rank) for each token i that is kept, position counting them from 0 in ascending order of i.
template <typename RankAt, typename Emit>
__device__ void compact(
    RankAt rank_at, int64_t length, int64_t keep, Threshold threshold, TopkStorage& storage, Emit emit) {
  constexpr uint64_t kAbove = uint64_t{1} << 32;  // counts of ranks above the threshold, and below them of those equal
  uint64_t before = 0;
  const auto kept_of = [&](uint64_t counts) {
    const int64_t above = static_cast<int64_t>(counts >> 32), ties = static_cast<int64_t>(counts & 0xFFFFFFFFu);
    return above + (ties < threshold.ties ? ties : threshold.ties);
  };
  for (int64_t tile = 0; tile < length && kept_of(before) < keep; tile += kTopkTile) {
    uint32_t ranks[kTopkItems];
    uint64_t own[kTopkItems], sums[kTopkItems], total;
#pragma unroll
    for (int i = 0; i < kTopkItems; ++i) {
      const int64_t at = tile + static_cast<int64_t>(threadIdx.x) * kTopkItems + i;
      ranks[i] = at < length ? rank_at(at) : 0;
      own[i] = at >= length ? 0 : (ranks[i] > threshold.rank ? kAbove : (ranks[i] == threshold.rank ? 1 : 0));
    }
    TopkStorage::RankScan(storage.rank_scan).ExclusiveSum(own, sums, total);
#pragma unroll
    for (int i = 0; i < kTopkItems; ++i) {
      const int64_t position = kept_of(before + sums[i]);
      if (kept_of(before + sums[i] + own[i]) > position) {
        emit(position, tile + static_cast<int64_t>(threadIdx.x) * kTopkItems + i, ranks[i]);
      }
    }
    before += total;
    __syncthreads();
  }
}

}  // namespace score::cuda
