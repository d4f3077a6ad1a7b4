// gumbel_topk: the k largest of logit + Gumbel number. One kernel perturbs the logits of all samples, then a
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
    const VideoKey key = video_key(seed, num_seeds, video);
    const float logit = __ldg(logits + row);
    for (int64_t sample = blockIdx.y; sample < num_samples; sample += gridDim.y) {
      uint32_t words[4];
      philox(key.seed, Stream::kGumbelTopk, static_cast<uint32_t>(sample), key.video, token >> 2, words);
      const uint32_t lane = token & 3;
      const uint32_t word = lane < 2 ? (lane == 0 ? words[0] : words[1]) : (lane == 2 ? words[2] : words[3]);
      ranks[sample * batch.num_tokens + row] = rank_bits(add_rn(logit, gumbel(word)));
    }
  }
}

constexpr int kSortBits = 8;
constexpr int kSortDigits = 1 << kSortBits;

struct SortStorage {
  using Scan = cub::BlockScan<int32_t, kThreads, cub::BLOCK_SCAN_WARP_SCANS>;
  Scan::TempStorage scan;
  int32_t place[kWarps][kSortDigits];  // of a warp's next item with this digit; before that, how many it has
};

// Sorts by falling rank, which is the upper half of an item; equal ranks stay as they were. LSD radix sort by one block
// through `spare`, which is as long; the number of passes is even, so the result is in `items`. Items may come straight
// from other threads: the first barrier is before the first look at them.
__device__ void sort_by_falling_rank(uint64_t* items, uint64_t* spare, int64_t count, SortStorage& storage) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const uint32_t lanes_before = (1u << (thread % 32)) - 1;
  for (int shift = 32; shift < 64; shift += kSortBits) {
    const auto digit_of = [shift](uint64_t item) { return static_cast<uint32_t>(~item >> shift) & (kSortDigits - 1); };
    int32_t* const histogram = storage.place[0];
    if (thread < kSortDigits) histogram[thread] = 0;
    __syncthreads();
    for (int64_t tile = 0; tile < count; tile += kThreads) {
      const bool exists = tile + thread < count;
      count_digit(histogram, exists ? digit_of(items[tile + thread]) : 0, exists);
    }
    __syncthreads();
    int32_t start = thread < kSortDigits ? histogram[thread] : 0;  // of a digit's next item: thread d keeps digit d's
    SortStorage::Scan(storage.scan).ExclusiveSum(start, start);

    for (int64_t tile = 0; tile < count; tile += kThreads) {
      __syncthreads();
      for (int i = thread; i < kWarps * kSortDigits; i += kThreads) storage.place[i / kSortDigits][i % kSortDigits] = 0;
      __syncthreads();
      const bool exists = tile + thread < count;
      const uint64_t item = exists ? items[tile + thread] : 0;
      const uint32_t digit = digit_of(item);
      const uint32_t peers = __match_any_sync(0xFFFFFFFFu, exists ? digit : kSortDigits);
      const int32_t peers_before = __popc(peers & lanes_before);
      if (exists && peers_before == 0) storage.place[warp][digit] = __popc(peers);
      __syncthreads();
      if (thread < kSortDigits) {
        for (int w = 0; w < kWarps; ++w) {
          const int32_t in_warp = storage.place[w][thread];
          storage.place[w][thread] = start;
          start += in_warp;
        }
      }
      __syncthreads();
      if (exists) spare[storage.place[warp][digit] + peers_before] = item;
    }
    __syncthreads();
    uint64_t* const sorted = spare;
    spare = items;
    items = sorted;
  }
}

// A block per (sample, video). ranks [num_samples, num_tokens]; index and order [num_samples, total_keep], spare as
// long. Until it is sorted, `order` holds items: a rank above a token's place within its video.
__global__ void __launch_bounds__(kThreads) gumbel_topk_rows(
    const uint32_t* ranks, PackedBatch batch, const int32_t* keep, int64_t total_keep, int64_t* index, int64_t* order,
    uint64_t* spare) {
  __shared__ KeptStorage<kThreads> kept_storage;
  __shared__ union {
    TopkStorage topk;
    SortStorage sort;
  } storage;
  const int64_t sample = blockIdx.x / batch.num_videos, video = blockIdx.x % batch.num_videos;
  const VideoRange range = video_range(batch, video);
  const KeptRange kept = kept_range<kThreads>(batch, keep, total_keep, video, kept_storage);
  index += sample * total_keep;
  order += sample * total_keep;
  uint64_t* const items = reinterpret_cast<uint64_t*>(order) + kept.begin;
  if (kept.size > 0) {
    const uint32_t* video_ranks = ranks + sample * batch.num_tokens + range.begin;
    const auto rank_at = [video_ranks](int64_t i) { return __ldg(video_ranks + i); };
    const Threshold threshold = find_threshold(rank_at, range.length(), kept.size, storage.topk);
    compact(
        rank_at, range.length(), kept.size, threshold, storage.topk, [&](int64_t position, int64_t i, uint32_t rank) {
          if (position >= kept.size) return;
          index[kept.begin + position] = range.begin + i;
          items[position] = static_cast<uint64_t>(rank) << 32 | static_cast<uint64_t>(i);
        });
    sort_by_falling_rank(items, spare + sample * total_keep + kept.begin, kept.size, storage.sort);
    for (int64_t j = threadIdx.x; j < kept.size; j += kThreads) {
      order[kept.begin + j] = range.begin + static_cast<int64_t>(items[j] & 0xFFFFFFFFu);
    }
  }
  // As in select: what budgets leave over still has to be a row.
  if (video == batch.num_videos - 1) {
    for (int64_t at = kept.begin + kept.size + threadIdx.x; at < total_keep; at += kThreads) index[at] = order[at] = 0;
  }
}

}  // namespace

cudaError_t gumbel_topk(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order, void* workspace, size_t* workspace_bytes,
    cudaStream_t stream) {
  // The workspace: spare [num_samples, total_keep] uint64, then ranks [num_samples, num_tokens] uint32.
  const int64_t spare_items = num_samples * total_keep, rank_items = num_samples * batch.num_tokens;
  if (workspace == nullptr) {
    *workspace_bytes =
        static_cast<size_t>(spare_items) * sizeof(uint64_t) + static_cast<size_t>(rank_items) * sizeof(uint32_t);
    return cudaSuccess;
  }
  const int64_t blocks = num_samples * batch.num_videos;
  if (spare_items == 0 || blocks == 0) return cudaSuccess;
  if (blocks > kMaxGrid) return cudaErrorInvalidConfiguration;
  uint64_t* const spare = static_cast<uint64_t*>(workspace);
  uint32_t* const ranks = reinterpret_cast<uint32_t*>(spare + spare_items);
  if (batch.num_tokens > 0) {
    const dim3 grid(
        grid_size(ceil_div(batch.num_tokens, kPerturbThreads)),
        static_cast<unsigned>(std::min<int64_t>(num_samples, 64)));
    SCORE_LAUNCH(perturb, grid, kPerturbThreads, 0, stream, logits, batch, num_samples, seed, num_seeds, ranks);
    if (cudaError_t error = cudaGetLastError()) return error;
  }
  SCORE_LAUNCH(
      gumbel_topk_rows, grid_size(blocks), kThreads, 0, stream, ranks, batch, keep, total_keep, index, order, spare);
  return cudaGetLastError();
}

}  // namespace score::cuda
