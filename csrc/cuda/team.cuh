// Teams: the blocks of one grid that work on one task together, a video or one sample of a video.
//
// A kernel written for a team runs in two ways. With a block per task, every team is one block and its barrier is the
// block's: for batches of many videos or of short ones. Launched cooperatively, a video's share of the grid is its
// share of the tokens: plan_teams, a small kernel before it, says which blocks form which team and clears the counters
// at which they meet. All blocks of such a grid are resident at once, so they may wait for each other.
//
// What a team's blocks decide together they decide from numbers in the memory that they share, never from tensors read
// twice: even tensors that another stream overwrites meanwhile cannot make them disagree about the next barrier.
#pragma once

#include "launch.cuh"
#include "videos.cuh"

namespace score::cuda {

constexpr int kTeamThreads = 1024;
constexpr int kMaxSeats = 512;

// When a grid shares videos, and into how small parts. Of what reads every token a few times, fewer tokens are not
// worth a block, nor so few in all the planning.
struct TeamWork {
  int64_t min_tokens = 8192, min_tokens_per_video = 1024;  // in all, and more for each video beside the first
  int tokens_per_block = 1024;
};

// What a block of a cooperative grid works on; video < 0: on nothing.
struct alignas(16) TeamSeat {
  int32_t video, rank, size;
  int32_t begin, end;  // the video's tokens
  int32_t kept_begin, kept_size;
  int32_t unused;
};

// The tokens of a video, counted from its first, that are one block's part of its team's work.
struct Span {
  uint32_t begin, end;
};

class Team {
 public:
  // This block alone.
  __device__ Team() : rank_(0), size_(1), counter_(nullptr), arrived_(0) {}
  __device__ Team(int rank, int size, uint32_t* counter) : rank_(rank), size_(size), counter_(counter), arrived_(0) {}

  __device__ int rank() const { return rank_; }
  __device__ int size() const { return size_; }

  __device__ Span span(int64_t length) const {
    const int64_t each = ceil_div(length, size_);
    const int64_t begin = rank_ * each < length ? rank_ * each : length;
    return {static_cast<uint32_t>(begin), static_cast<uint32_t>(begin + each < length ? begin + each : length)};
  }

  // A barrier for all threads of all blocks of the team; what they wrote to global memory before it is seen behind it.
  __device__ void sync() {
    __syncthreads();
    if (size_ == 1) return;
    if (threadIdx.x == 0) {
      arrived_ += static_cast<uint32_t>(size_);
      add_release(counter_, 1);
      while (load_acquire(counter_) < arrived_) {
      }
    }
    __syncthreads();
  }

 private:
  int rank_, size_;
  uint32_t* counter_;
  uint32_t arrived_;  // what the counter says once all have come to the last barrier; thread 0's
};

// Combines, in order of rank, what `count` blocks left in slots [count]. Called by all threads; the result is thread
// 0's.
template <typename Reduce, typename T, typename Op>
__device__ T combine(const T* slots, int count, const T& identity, Op op, typename Reduce::TempStorage& storage) {
  T own = identity;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kTeamThreads) own = op(own, slots[i]);
  return Reduce(storage).Reduce(own, op);
}

// A cooperative grid of num_samples * num_seats blocks, where num_seats > 0: block `sample * num_seats + s` sits in
// seats[s]. Of the teams, num_samples * num_videos, each has a counter.
struct TeamGrid {
  static constexpr int kCounterStride = 32;  // in words: a cache line for each

  int64_t num_samples;
  int num_seats, tokens_per_block;
  TeamSeat* seats;
  uint32_t* counters;

  __device__ int64_t sample() const { return blockIdx.x / num_seats; }
  __device__ const TeamSeat& seat() const { return seats[blockIdx.x % num_seats]; }
  __device__ Team team(const TeamSeat& seat, int64_t team) const {
    return Team(seat.rank, seat.size, counters + team * kCounterStride);
  }
};

// How many seats there are for the videos of each sample; 0 where a block per task serves as well or better.
cudaError_t count_seats(const PackedBatch& batch, int64_t num_samples, int* num_seats, const TeamWork& work = {});

// Fills `grid`, and clears the first `words` of each team's cleared [num_teams, stride].
cudaError_t plan_teams(
    const TeamGrid& grid, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int32_t* cleared,
    int words, int stride, cudaStream_t stream);

// Cuts a piece of memory into arrays. Of none, null, it only counts the bytes.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)), bytes_(0) {}

  template <typename T>
  T* take(int64_t count) {
    constexpr size_t kAlignment = 128;
    T* const array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return array;
  }

  TeamGrid take_grid(int64_t num_samples, int64_t num_videos, int num_seats, const TeamWork& work = {}) {
    TeamGrid grid{num_samples, num_seats, work.tokens_per_block, take<TeamSeat>(num_seats), nullptr};
    grid.counters = take<uint32_t>(num_seats > 0 ? num_samples * num_videos * TeamGrid::kCounterStride : 0);
    return grid;
  }

  size_t bytes() const { return bytes_; }

 private:
  char* memory_;
  size_t bytes_;
};

}  // namespace score::cuda
