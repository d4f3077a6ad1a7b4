// draw: Gumbel top-k, the k largest of logit + Gumbel number. One kernel perturbs the logits of all samples, then a
// block per (sample, video) picks the k highest ranks and sorts them.
#include "kernels.h"
#include "launch.cuh"
#include "score/ordering.h"
#include "score/philox.h"
#include "score/transcendental.h"
#include "topk.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = kTopkThreads;
constexpr int kWarps = kThreads / 32;
constexpr int kPerturbThreads = 256;

// ranks [num_samples, num_tokens] of the perturbed logits; blockIdx.x and threads count tokens, blockIdx.y samples.
__global__ void __launch_bounds__(kPerturbThreads) perturb(
    const float* logits, PackedBatch batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
    uint32_t* ranks) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kPerturbThreads;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kPerturbThreads + threadIdx.x; row < batch.num_tokens;
       row += step) {
    const int64_t video = find_video(batch, row);
    const uint32_t token = static_cast<uint32_t>(row - video_range(batch, video).begin);
    const int64_t key = seed[num_seeds == 1 ? 0 : video];
    const uint32_t key_video = num_seeds == 1 ? static_cast<uint32_t>(video) : 0;
    const float logit = __ldg(logits + row);
    for (int64_t sample = blockIdx.y; sample < num_samples; sample += gridDim.y) {
      uint32_t words[4];
      philox(key, Stream::kPlackettLuce, static_cast<uint32_t>(sample), key_video, token >> 2, words);
      const uint32_t lane = token & 3;
      const uint32_t word = lane < 2 ? (lane == 0 ? words[0] : words[1]) : (lane == 2 ? words[2] : words[3]);
      ranks[sample * batch.num_tokens + row] = rank_bits(add_rn(logit, gumbel(word)));
    }
  }
}

constexpr int kSortBits = 8;
constexpr int kSortDigits = 1 << kSortBits;

struct SortStorage {
  using Scan = cub::BlockScan<int64_t, kThreads>;
  Scan::TempStorage scan;
  int64_t start[kSortDigits];  // where the next item with this digit goes
  int32_t in_warp[kWarps][kSortDigits];
};

// Sorts by falling rank, which is the upper half of an item; equal ranks stay as they were. LSD radix sort by one block
// through `spare`, which is as long; the result is in `items`, after an even number of passes.
__device__ void sort_by_falling_rank(uint64_t* items, uint64_t* spare, int64_t count, SortStorage& storage) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const uint32_t lanes_before = (1u << (thread % 32)) - 1;
  for (int shift = 32; shift < 64; shift += kSortBits) {
    const auto digit_of = [shift](uint64_t item) {
      return static_cast<uint32_t>(~item >> shift) & (kSortDigits - 1);
    };
    int32_t* histogram = storage.in_warp[0];
    if (thread < kSortDigits) histogram[thread] = 0;
    __syncthreads();
    for (int64_t tile = 0; tile < count; tile += kThreads) {
      const bool exists = tile + thread < count;
      count_digit(histogram, exists ? digit_of(items[tile + thread]) : 0, exists);
    }
    __syncthreads();
    int64_t start = thread < kSortDigits ? histogram[thread] : 0;
    SortStorage::Scan(storage.scan).ExclusiveSum(start, start);
    if (thread < kSortDigits) storage.start[thread] = start;

    for (int64_t tile = 0; tile < count; tile += kThreads) {
      __syncthreads();
      for (int i = thread; i < kWarps * kSortDigits; i += kThreads) storage.in_warp[0][i] = 0;
      __syncthreads();
      const bool exists = tile + thread < count;
      const uint64_t item = exists ? items[tile + thread] : 0;
      const uint32_t digit = digit_of(item);
      const uint32_t peers = __match_any_sync(0xFFFFFFFFu, exists ? digit : kSortDigits);
      const int32_t rank_in_warp = __popc(peers & lanes_before);
      if (exists && rank_in_warp == 0) storage.in_warp[warp][digit] = __popc(peers);
      __syncthreads();
      if (thread < kSortDigits) {
        // From counts to places: digits keep the order of warps, and warps that of lanes.
        int32_t before = 0;
        for (int w = 0; w < kWarps; ++w) {
          const int32_t own = storage.in_warp[w][thread];
          storage.in_warp[w][thread] = before;
          before += own;
        }
      }
      __syncthreads();
      if (exists) spare[storage.start[digit] + storage.in_warp[warp][digit] + rank_in_warp] = item;
      __syncthreads();
      if (thread < kSortDigits) {
        // The last warp's place plus its count is the tile's count of this digit; recounted from the next start.
      }
    }
    uint64_t* const swapped = items;
    items = spare;
    spare = swapped;
  }
}

}  // namespace
}  // namespace score::cuda
