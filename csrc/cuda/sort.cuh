// Sorting distinct keys by one team: short lists by a block each, then merges of lists, in which every key finds its
// place by itself.
#pragma once

#include "team.cuh"

namespace score::cuda {

constexpr int kSortLength = 2048;  // of the longest list that a block sorts in shared memory
constexpr int kMergeWays = 16;     // lists that become one in a merge
constexpr int kMergeParts = 4;     // threads that share the search for a key's place
constexpr int kMergeKeys = kTeamThreads / kMergeParts;

union SortStorage {
  uint64_t keys[kSortLength];
  int32_t places[kMergeKeys];
};

// One step of a bitonic sort: orders keys [length] that lie `distance` apart, by turns up and down every `run` keys.
__device__ inline void order_pairs(uint64_t* keys, int length, int run, int distance) {
  const int thread = static_cast<int>(threadIdx.x);
  const int low = 2 * thread - (thread & (distance - 1)), high = low + distance;
  if (high >= length) return;
  const uint64_t a = keys[low], b = keys[high];
  if ((a > b) == ((low & run) == 0)) {
    keys[low] = b;
    keys[high] = a;
  }
}

// Bitonic sort of keys [length] in shared memory, length a power of two and at least 64. Barriers around it are its
// own.
__device__ inline void sort_block(uint64_t* keys, int length) {
  // Up to this distance the keys that a warp orders are 64 of its own.
  constexpr int kWarpDistance = 32;
  const bool has_keys = static_cast<int>(threadIdx.x) / 32 * 64 < length;  // this warp
  __syncthreads();
  for (int run = 2; run <= length; run *= 2) {
    for (int distance = run / 2; distance > kWarpDistance; distance /= 2) {
      order_pairs(keys, length, run, distance);
      __syncthreads();
    }
    for (int distance = run / 2 < kWarpDistance ? run / 2 : kWarpDistance; has_keys && distance > 0; distance /= 2) {
      order_pairs(keys, length, run, distance);
      __syncwarp();
    }
    if (run > kWarpDistance) __syncthreads();  // the next run begins with keys of other warps, or there is none
  }
}

// How many of the sorted keys [length] are smaller.
__device__ inline int32_t count_smaller(const uint64_t* keys, int64_t length, uint64_t key) {
  int64_t low = 0;
  while (length > 0) {
    const int64_t half = length / 2;
    if (keys[low + half] < key) {
      low += half + 1;
      length -= half + 1;
    } else {
      length = half;
    }
  }
  return static_cast<int32_t>(low);
}

// The keys of one team, [count] in global memory, on their way into order.
class TeamSort {
 public:
  __device__ TeamSort(int64_t count, const Team& team) : count_(count), length_(64), merges_(0) {
    const int64_t share = ceil_div(count, team.size());
    while (length_ < share && length_ < kSortLength) length_ *= 2;
    for (int64_t length = length_; length < count; length *= kMergeWays) ++merges_;
  }

  // Of two arrays [count] the one in which the keys must be, so that the last merge does not read `result`.
  __device__ uint64_t* source(uint64_t* result, uint64_t* spare) const { return merges_ % 2 == 0 ? result : spare; }

  // Calls emit(j, key) for the keys in ascending order, each once, by any thread of the team. Called by all of them,
  // with the keys in source(result, spare), written before the team's last barrier. What emit writes may lie where
  // `result` does: emit(j, .) is called when nobody reads result any more.
  template <typename Emit>
  __device__ void run(uint64_t* result, uint64_t* spare, Team& team, SortStorage& storage, Emit emit) {
    uint64_t* keys = source(result, spare);
    for (int64_t list = team.rank(); list * length_ < count_; list += team.size()) {
      const int64_t begin = list * length_;
      const int size = static_cast<int>(count_ - begin < length_ ? count_ - begin : length_);
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < length_; i += kTeamThreads) {
        storage.keys[i] = i < size ? keys[begin + i] : ~uint64_t{0};
      }
      sort_block(storage.keys, static_cast<int>(length_));
      for (int i = static_cast<int>(threadIdx.x); i < size; i += kTeamThreads) {
        if (merges_ > 0) {
          keys[begin + i] = storage.keys[i];
        } else {
          emit(begin + i, storage.keys[i]);
        }
      }
    }
    int64_t length = length_;
    for (int merge = 0; merge < merges_; ++merge, length *= kMergeWays) {
      team.sync();
      if (merge + 1 < merges_) {
        uint64_t* const merged = keys == result ? spare : result;
        merge_lists(keys, length, team, storage, [&](int64_t place, uint64_t key) { merged[place] = key; });
        keys = merged;
      } else {
        merge_lists(keys, length, team, storage, emit);
      }
    }
  }

 private:
  // Merges runs of kMergeWays lists of `length` keys: emit(place, key) for every key.
  template <typename Emit>
  __device__ void merge_lists(const uint64_t* keys, int64_t length, Team& team, SortStorage& storage, Emit emit) {
    const int slot = static_cast<int>(threadIdx.x) % kMergeKeys, part = static_cast<int>(threadIdx.x) / kMergeKeys;
    const int64_t step = static_cast<int64_t>(team.size()) * kMergeKeys;
    for (int64_t tile = static_cast<int64_t>(team.rank()) * kMergeKeys; tile < count_; tile += step) {
      const int64_t at = tile + slot;
      const int64_t group = at / (length * kMergeWays) * (length * kMergeWays);
      const uint64_t key = at < count_ ? keys[at] : 0;
      __syncthreads();
      if (part == 0) storage.places[slot] = 0;
      __syncthreads();
      if (at < count_) {
        int32_t smaller = 0;
        for (int list = part; list < kMergeWays; list += kMergeParts) {
          const int64_t begin = group + list * length;
          if (begin >= count_) break;
          const int64_t size = count_ - begin < length ? count_ - begin : length;
          smaller += count_smaller(keys + begin, size, key);
        }
        atomicAdd(&storage.places[slot], smaller);
      }
      __syncthreads();
      if (part == 0 && at < count_) emit(group + storage.places[slot], key);
    }
  }

  int64_t count_, length_;
  int merges_;
};

}  // namespace score::cuda
