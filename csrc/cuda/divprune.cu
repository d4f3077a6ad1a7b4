// divprune: farthest-first traversal of each video's tokens by cosine distance. A team per video.
//
// A token's distance to the nearest taken one only falls, so one that is out of date is a bound: each warp has tokens
// of its own, and must bring only those up to date that lead among them and are ahead of the best that the block knows.
// For each token taken the blocks of a team meet once, so what counts is the warp that is busy longest. Hence few
// tokens to a warp, and a few products for all warps while one has more: without those, a warp falls behind by
// hundreds. Sums run as score/cosines.h says, a half of a warp to a row. Compiled, and run in tests/cuda_emulation and
// tests/ptx; not on a GPU.
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "score/cosines.h"
#include "score/sums.h"
#include "team.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kWarps = kTeamThreads / 32;
constexpr int kRowThreads = 256;
constexpr float kFurther = 3.0f;  // than any distance
constexpr float kTaken = -1.0f;   // nearer than any distance
constexpr int kBatch = 16;        // taken tokens that a row is compared with before it is looked at again
constexpr int kSpareRounds = 4;   // of two products, for each token taken and warp, whether they are needed yet or not
constexpr TeamWork kWork{.min_tokens = 1024, .min_tokens_per_video = 128, .tokens_per_block = 64};

__device__ inline uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

struct MaxKey {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return larger(a, b); }
};

__device__ inline uint64_t warp_max(uint64_t key) {
#pragma unroll
  for (unsigned distance = 16; distance > 0; distance /= 2) {
    const uint32_t high = __shfl_xor_sync(~0u, static_cast<uint32_t>(key >> 32), distance);
    const uint32_t low = __shfl_xor_sync(~0u, static_cast<uint32_t>(key), distance);
    key = larger(key, static_cast<uint64_t>(high) << 32 | low);
  }
  return key;
}

// What is known of each token, [num_tokens].
struct RowFacts {
  float* squares;      // sum of squares
  int32_t* exponents;  // of the power of two that the row is multiplied by
  float* nearest;      // distance to the nearest of those taken that it was compared with, or kTaken
  int32_t* compared;   // how many those are
};

template <typename T>
struct Rows {
  const T* tokens;
  int64_t width;
  const float* weights;  // [num_tokens], or null
  RowFacts facts;

  __device__ float score(int64_t row, float distance) const {
    return weights == nullptr ? distance : weighted(distance, weights[row]);
  }

  // Of column d, times 2^exponent.
  __device__ float element(int64_t row, int64_t d, int exponent) const {
    const float x = to_float(tokens[row * width + d]);
    return exponent == 0 ? x : static_cast<float>(scalbn(static_cast<double>(x), exponent));
  }
};

// The sum of the lanes of each half of a warp; every lane of the half gets it.
__device__ inline float sum_half(float sum) {
#pragma unroll
  for (int distance = kSumLanes / 2; distance > 0; distance /= 2) {
    sum = add_rn(sum, __shfl_xor_sync(~0u, sum, distance));
  }
  return sum;
}

// Called by a whole warp, each half with rows of its own or both with the same; a(d) and b(d) are their columns.
template <typename A, typename B>
__device__ float half_product(int64_t width, A a, B b) {
  float sum = 0.0f;
  for (int64_t d = threadIdx.x % kSumLanes; d < width; d += kSumLanes) sum = add_rn(sum, mul_rn(a(d), b(d)));
  return sum_half(sum);
}

template <typename T>
__device__ float row_square(const Rows<T>& rows, int64_t row, int exponent) {
  const auto element = [&](int64_t d) { return rows.element(row, d, exponent); };
  return half_product(rows.width, element, element);
}

// The exponent that brings a row's largest element to 1 .. 2; `is_zero` for a zero token, and for one with NaN or
// infinity, which counts as one.
template <typename T>
__device__ int row_exponent(const Rows<T>& rows, int64_t row, bool& is_zero) {
  float largest = 0.0f, is_finite = 1.0f;
  for (int64_t d = threadIdx.x % 32; d < rows.width; d += 32) {
    const float size = fabsf(rows.element(row, d, 0));
    largest = size > largest ? size : largest;
    is_finite = size <= 3.4028234663852886e38f ? is_finite : 0.0f;
  }
#pragma unroll
  for (unsigned distance = 16; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(~0u, largest, distance);
    largest = other > largest ? other : largest;
    is_finite = mul_rn(is_finite, __shfl_xor_sync(~0u, is_finite, distance));
  }
  is_zero = is_finite == 0.0f || largest == 0.0f;
  return is_zero ? 0 : -ilogbf(largest);
}

// A warp to a row; both halves do the same.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) square_rows(Rows<T> rows, int64_t num_tokens) {
  constexpr int kRows = kRowThreads / 32;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / 32; row < num_tokens;
       row += static_cast<int64_t>(gridDim.x) * kRows) {
    int exponent = 0;
    float square = row_square(rows, row, exponent);
    if (!sum_is_exact(square)) {
      bool is_zero;
      exponent = row_exponent(rows, row, is_zero);
      square = is_zero ? 0.0f : row_square(rows, row, exponent);
    }
    if (threadIdx.x % 32 == 0) {
      rows.facts.squares[row] = square;
      rows.facts.exponents[row] = exponent;
      rows.facts.nearest[row] = kFurther;
      rows.facts.compared[row] = 0;
    }
  }
}

// Where the sums of a video's blocks of kMeanRows rows begin.
__device__ inline int64_t first_sum(const VideoRange& range, int64_t video) { return range.begin / kMeanRows + video; }

// sums [num_sums(), width]: of the directions of each kMeanRows rows of a video. A thread to a column.
template <typename T>
__global__ void __launch_bounds__(kRowThreads) sum_directions(Rows<T> rows, PackedBatch batch, float* sums) {
  for (int64_t video = blockIdx.y; video < batch.num_videos; video += gridDim.y) {
    const VideoRange range = video_range(batch, video);
    for (int64_t block = blockIdx.x; block * kMeanRows < range.length(); block += gridDim.x) {
      const int64_t from = range.begin + block * kMeanRows;
      const int64_t to = from + kMeanRows < range.end ? from + kMeanRows : range.end;
      for (int64_t d = threadIdx.x; d < rows.width; d += kRowThreads) {
        float sum = 0.0f;
        for (int64_t row = from; row < to; ++row) {
          const float scale = direction_scale(rows.facts.squares[row]);
          if (scale == 0.0f) continue;  // its elements may be NaN
          sum = add_rn(sum, mul_rn(rows.element(row, d, rows.facts.exponents[row]), scale));
        }
        sums[(first_sum(range, video) + block) * rows.width + d] = sum;
      }
    }
  }
}

// means [num_videos, width]: the sum of a video's sums.
__global__ void __launch_bounds__(kRowThreads)
    add_sums(PackedBatch batch, int64_t width, const float* sums, float* means) {
  const int64_t d = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x;
  if (d >= width) return;
  for (int64_t video = blockIdx.y; video < batch.num_videos; video += gridDim.y) {
    const VideoRange range = video_range(batch, video);
    double sum = 0.0;
    for (int64_t block = 0; block < ceil_div(range.length(), kMeanRows); ++block) {
      sum = add_rn(sum, static_cast<double>(sums[(first_sum(range, video) + block) * width + d]));
    }
    means[video * width + d] = static_cast<float>(sum);
  }
}

struct TraversalStorage {
  using KeyReduce = cub::BlockReduce<uint64_t, kTeamThreads>;
  KeyReduce::TempStorage reduce;
  uint64_t best;
  unsigned long long bound;  // the largest key that a warp of the block found since the last election
};

// One video's traversal by a team. Row numbers are counted from its first.
template <typename T>
class Traversal {
 public:
  // keys [2, team.size()] is what the blocks tell each other; null for a team of one. order [keep] is the result.
  __device__ Traversal(
      const Rows<T>& rows, const VideoRange& range, Team& team, uint64_t* keys, TraversalStorage& storage,
      int32_t* order)
      : rows_(rows),
        range_(range),
        team_(team),
        keys_(keys),
        storage_(storage),
        order_(order),
        warp_(team.rank() * kWarps + static_cast<int>(threadIdx.x) / 32),
        warps_(team.size() * kWarps) {}

  __device__ void run(int keep, const float* mean) {
    int64_t latest = elect(furthest_from(mean));
    for (int taken = 1;; ++taken) {
      take(latest, taken - 1);
      if (taken == keep) return;
      latest = elect(furthest_own(latest, taken));
    }
  }

 private:
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }

  // The key of this warp's row that points furthest away from the mean.
  __device__ uint64_t furthest_from(const float* mean) const {
    uint64_t best = 0;
    const auto of_mean = [&](int64_t d) { return mean[d]; };
    const float mean_square = rows_.weights == nullptr ? 0.0f : half_product(rows_.width, of_mean, of_mean);
    for (int64_t row = warp_; row < range_.length(); row += warps_) {
      const int64_t at = range_.begin + row;
      const float square = rows_.facts.squares[at];
      const int exponent = rows_.facts.exponents[at];
      float product = 0.0f;
      if (square != 0.0f) {
        product = half_product(rows_.width, [&](int64_t d) { return rows_.element(at, d, exponent); }, of_mean);
      }
      const float distance = rows_.weights == nullptr ? distance_from_mean(product, square)
                                                      : rows_.score(at, cosine_distance(product, square, mean_square));
      best = larger(best, distance_key(distance, static_cast<uint32_t>(row)));
    }
    return best;
  }

  // The largest key of those that the block's warps have found since the last election, and of `key`.
  __device__ uint64_t bound_with(uint64_t key) const {
    return warp_max(lane() == 0 ? larger(atomicMax(&storage_.bound, key), key) : 0);
  }

  // The key of this warp's row whose nearest taken one is furthest; 0 where it has none left, or where another warp of
  // the block has one that is further. When that one is found decides how much is compared, and nothing else.
  __device__ uint64_t furthest_own(int64_t latest, int taken) const {
    for (int rounds = 0;;) {
      uint64_t first = 0, first_late = 0;  // of all, and of those that are out of date
      for (int64_t row = warp_ + lane() * warps_; row < range_.length(); row += 32 * warps_) {
        const int64_t at = range_.begin + row;
        const float nearest = rows_.facts.nearest[at];
        if (nearest == kTaken) continue;
        const float score = rows_.score(at, nearest);
        const uint64_t key = distance_key(score, static_cast<uint32_t>(row));
        first = larger(first, key);
        // what is 0 stays 0
        if (score != 0.0f && rows_.facts.compared[at] < taken) first_late = larger(first_late, key);
      }
      first = warp_max(first);
      first_late = warp_max(first_late);
      if (first == 0) return 0;
      const bool known = first != first_late, leads = first >= bound_with(known ? first : 0);
      const bool needed = leads && !known;
      if (!needed && (first_late == 0 || rounds >= kSpareRounds)) return leads ? first : 0;
      const int64_t row = row_of_key(first_late), at = range_.begin + row;
      const int compared = rows_.facts.compared[at], left = taken - compared;
      const int most = needed ? kBatch : 2 * (kSpareRounds - rounds);
      const int to = compared + (left < most || rows_.facts.squares[at] == 0.0f ? left : most);
      const float now = nearest_of(at, compared, to, rows_.facts.nearest[at], latest, taken);
      rounds += (to - compared + 1) / 2;
      __syncwarp();  // all lanes have read what its lane now changes
      if (lane() == row / warps_ % 32) {
        rows_.facts.nearest[at] = now;
        rows_.facts.compared[at] = to;
      }
      __syncwarp();
    }
  }

  // The distance to the nearest of the first `to` taken ones, of which a row has been compared with the first. Each
  // half of the warp compares it with every second one.
  __device__ float nearest_of(int64_t at, int compared, int to, float nearest, int64_t latest, int taken) const {
    const float square = rows_.facts.squares[at];
    if (square == 0.0f) return nearest < 1.0f ? nearest : 1.0f;
    const int exponent = rows_.facts.exponents[at];
    for (int next = compared; next < to; next += 2) {
      const int half = next + lane() / kSumLanes, number = half < to ? half : to - 1;
      const int64_t other = range_.begin + (number == taken - 1 ? latest : order_[number]);
      const int other_exponent = rows_.facts.exponents[other];
      const float product = half_product(
          rows_.width, [&](int64_t d) { return rows_.element(at, d, exponent); },
          [&](int64_t d) { return rows_.element(other, d, other_exponent); });
      const float distance = cosine_distance(product, square, rows_.facts.squares[other]);
      nearest = distance < nearest ? distance : nearest;
    }
    const float others = __shfl_xor_sync(~0u, nearest, kSumLanes);
    return others < nearest ? others : nearest;
  }

  // The row of the largest key of all warps of the team.
  __device__ int64_t elect(uint64_t key) {
    uint64_t best = TraversalStorage::KeyReduce(storage_.reduce).Reduce(key, MaxKey());
    if (team_.size() > 1) {
      uint64_t* const keys = keys_ + (elections_++ % 2) * team_.size();  // the ones before may still be read
      if (threadIdx.x == 0) keys[team_.rank()] = best;
      team_.sync();
      best = combine<TraversalStorage::KeyReduce>(keys, team_.size(), uint64_t{0}, MaxKey(), storage_.reduce);
    }
    if (threadIdx.x == 0) {
      storage_.best = best;
      storage_.bound = 0;
    }
    __syncthreads();
    // The next election writes it only behind barriers of its own.
    best = storage_.best;
    return best == 0 ? 0 : row_of_key(best);  // 0 only where videos overlap
  }

  __device__ void take(int64_t row, int place) const {
    // No other lane looks at it again.
    if (row % warps_ == warp_ && row / warps_ % 32 == lane()) rows_.facts.nearest[range_.begin + row] = kTaken;
    if (team_.rank() == 0 && threadIdx.x == 0) order_[place] = static_cast<int32_t>(row);
  }

  const Rows<T>& rows_;
  const VideoRange range_;
  Team& team_;
  uint64_t* const keys_;
  TraversalStorage& storage_;
  int32_t* const order_;
  const int64_t warp_, warps_;
  int elections_ = 0;
};

// Whether a video's traversal decides nothing: none or, where their order is nothing to the caller, all are kept.
__device__ inline bool is_decided(const VideoRange& range, int64_t keep, bool ordered) {
  return keep == 0 || (keep == range.length() && !ordered);
}

template <typename T>
__global__ void __launch_bounds__(kTeamThreads) traverse_by_block(
    Rows<T> rows, PackedBatch batch, const int32_t* keep, int64_t total_keep, bool ordered, const float* means,
    int32_t* order) {
  __shared__ KeptStorage<kTeamThreads> kept_storage;
  __shared__ TraversalStorage storage;
  const int64_t video = blockIdx.x;
  const VideoRange range = video_range(batch, video);
  const KeptRange kept = kept_range<kTeamThreads>(batch, keep, total_keep, video, kept_storage);
  if (is_decided(range, kept.size, ordered)) return;
  Team team;
  Traversal<T>(rows, range, team, nullptr, storage, order + kept.begin)
      .run(static_cast<int>(kept.size), means + video * rows.width);
}

// keys [2 * blocks of the grid].
template <typename T>
__global__ void __launch_bounds__(kTeamThreads)
    traverse_by_team(Rows<T> rows, TeamGrid grid, bool ordered, const float* means, uint64_t* keys, int32_t* order) {
  __shared__ TraversalStorage storage;
  const TeamSeat seat = grid.seat();
  if (seat.video < 0) return;
  const VideoRange range{seat.begin, seat.end};
  if (is_decided(range, seat.kept_size, ordered)) return;
  Team team = grid.team(seat, seat.video);
  Traversal<T>(
      rows, range, team, keys + 2 * (static_cast<int64_t>(blockIdx.x) - seat.rank), storage, order + seat.kept_begin)
      .run(seat.kept_size, means + seat.video * rows.width);
}

// index [total_keep], from the order or from what was taken. A block to a video.
__global__ void __launch_bounds__(kTeamThreads) write_rows(
    PackedBatch batch, const int32_t* keep, int64_t total_keep, bool ordered, const int32_t* order,
    const float* nearest, int64_t* index) {
  using Scan = cub::BlockScan<int32_t, kTeamThreads>;
  __shared__ KeptStorage<kTeamThreads> kept_storage;
  __shared__ Scan::TempStorage scan_storage;
  const int64_t video = blockIdx.x;
  const VideoRange range = video_range(batch, video);
  const KeptRange kept = kept_range<kTeamThreads>(batch, keep, total_keep, video, kept_storage);
  if (ordered) {
    for (int64_t at = threadIdx.x; at < kept.size; at += kTeamThreads) {
      index[kept.begin + at] = range.begin + order[kept.begin + at];
    }
  } else {
    const bool all = kept.size == range.length();
    int64_t before = 0;
    for (int64_t first = 0; kept.size > 0 && first < range.length(); first += kTeamThreads) {
      const int64_t row = first + threadIdx.x;
      const bool is_kept = row < range.length() && (all || nearest[range.begin + row] == kTaken);
      int32_t place = 0, count = 0;
      Scan(scan_storage).ExclusiveSum(is_kept ? 1 : 0, place, count);
      if (is_kept && before + place < kept.size) index[kept.begin + before + place] = range.begin + row;
      before += count;
      __syncthreads();
    }
  }
  // Budgets that fall short of total_keep are the caller's mistake; what they leave over still has to be a row.
  if (video == batch.num_videos - 1) {
    for (int64_t at = kept.begin + kept.size + threadIdx.x; at < total_keep; at += kTeamThreads) index[at] = 0;
  }
}

// What the kernels of one call share, cut out of its workspace.
struct Shared {
  Workspace workspace;
  RowFacts facts;
  float *sums, *means;
  int32_t* order;
  TeamGrid grid;
  uint64_t* keys;

  Shared(void* memory, const TokenBatch& batch, int64_t total_keep, int num_seats) : workspace(memory) {
    facts.squares = workspace.take<float>(batch.num_tokens);
    facts.exponents = workspace.take<int32_t>(batch.num_tokens);
    facts.nearest = workspace.take<float>(batch.num_tokens);
    facts.compared = workspace.take<int32_t>(batch.num_tokens);
    sums = workspace.take<float>((batch.num_tokens / kMeanRows + batch.num_videos) * batch.width);
    means = workspace.take<float>(batch.num_videos * batch.width);
    order = workspace.take<int32_t>(total_keep);
    grid = workspace.take_grid(1, batch.num_videos, num_seats, kWork);
    keys = workspace.take<uint64_t>(2 * static_cast<int64_t>(num_seats));
  }
};

template <typename T>
cudaError_t launch(
    const TokenBatch& tokens, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, bool ordered,
    const float* weights, int num_seats, const Shared& shared, int64_t* index, cudaStream_t stream) {
  const Rows<T> rows{static_cast<const T*>(tokens.tokens), tokens.width, weights, shared.facts};
  SCORE_LAUNCH(
      square_rows<T>, grid_size(ceil_div(batch.num_tokens, kRowThreads / 32)), kRowThreads, 0, stream, rows,
      batch.num_tokens);
  if (cudaError_t error = cudaGetLastError()) return error;
  const unsigned videos = static_cast<unsigned>(std::min<int64_t>(batch.num_videos, 65535));
  SCORE_LAUNCH(
      sum_directions<T>, dim3(grid_size(ceil_div(batch.num_tokens, kMeanRows)), videos), kRowThreads, 0, stream, rows,
      batch, shared.sums);
  if (cudaError_t error = cudaGetLastError()) return error;
  SCORE_LAUNCH(
      add_sums, dim3(grid_size(ceil_div(tokens.width, kRowThreads)), videos), kRowThreads, 0, stream, batch,
      tokens.width, shared.sums, shared.means);
  if (cudaError_t error = cudaGetLastError()) return error;
  if (num_seats == 0) {
    SCORE_LAUNCH(
        traverse_by_block<T>, grid_size(batch.num_videos), kTeamThreads, 0, stream, rows, batch, keep, total_keep,
        ordered, shared.means, shared.order);
    if (cudaError_t error = cudaGetLastError()) return error;
  } else {
    if (cudaError_t error = plan_teams(shared.grid, batch, keep, total_keep, nullptr, 0, 0, stream)) return error;
    if (cudaError_t error = launch_cooperative(
            traverse_by_team<T>, grid_size(num_seats), kTeamThreads, stream, rows, shared.grid, ordered, shared.means,
            shared.keys, shared.order)) {
      return error;
    }
  }
  SCORE_LAUNCH(
      write_rows, grid_size(batch.num_videos), kTeamThreads, 0, stream, batch, keep, total_keep, ordered, shared.order,
      shared.facts.nearest, index);
  return cudaGetLastError();
}

}  // namespace

cudaError_t divprune(
    const TokenBatch& tokens, const int32_t* keep, int64_t total_keep, bool ordered, const float* weights,
    int64_t* index, void* workspace, size_t* workspace_bytes, cudaStream_t stream) {
  const PackedBatch batch{tokens.cu_seqlens, tokens.num_videos, tokens.num_tokens};
  int num_seats = 0;
  if (cudaError_t error = count_seats(batch, 1, &num_seats, kWork)) return error;
  const Shared shared(workspace, tokens, total_keep, num_seats);
  if (workspace == nullptr) {
    *workspace_bytes = shared.workspace.bytes();
    return cudaSuccess;
  }
  if (total_keep == 0) return cudaSuccess;
  return dispatch_dtype(tokens.dtype, [&](auto element) {
    using T = decltype(element);
    return launch<T>(tokens, batch, keep, total_keep, ordered, weights, num_seats, shared, index, stream);
  });
}

}  // namespace score::cuda
