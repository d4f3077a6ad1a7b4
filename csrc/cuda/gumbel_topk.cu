// gumbel_topk: the k largest of logit + Gumbel number. A team per sample of a video perturbs the logits, picks the k
// highest ranks and sorts them.
//
// Measured on an H200 in a CUDA graph, 8 samples of one video, a tenth kept: 40,000 tokens 35 us, a million 479. Beside
// what select does, ranks are 4 bytes written and read 4 times per token, from cache.
#include "kernels.h"
#include "launch.cuh"
#include "score/ordering.h"
#include "score/philox.h"
#include "score/transcendental.h"
#include "sort.cuh"
#include "team.cuh"
#include "topk.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

// ranks [length] of the video's perturbed logits, those of `span`.
__device__ void perturb(const float* logits, Span span, const VideoKey& key, uint32_t sample, uint32_t* ranks) {
  for (uint32_t quad = span.begin / 4 + threadIdx.x; quad < (span.end + 3) / 4; quad += kTeamThreads) {
    uint32_t words[4];
    philox(key.seed, Stream::kGumbelTopk, sample, key.video, quad, words);
#pragma unroll
    for (uint32_t lane = 0; lane < 4; ++lane) {
      const uint32_t token = 4 * quad + lane;
      if (token < span.begin || token >= span.end) continue;
      ranks[token] = rank_bits(add_rn(__ldg(logits + token), gumbel(words[lane])));
    }
  }
}

// Tensors of all tasks: logits [num_tokens], ranks [num_samples, num_tokens]; index, order and spare
// [num_samples, total_keep].
struct Draw {
  const float* logits;
  const int64_t* seed;
  int64_t num_seeds;
  int64_t total_keep;
  uint32_t* ranks;
  int64_t* index;
  int64_t* order;  // until it is sorted, keys: the rank's complement above the place within the video
  uint64_t* spare;
};

struct DrawStorage {
  union {
    TopkStorage topk;
    SortStorage sort;
  };
};

// Called by all blocks of the team.
__device__ void draw_rows(
    const Draw& draw, const PackedBatch& batch, int64_t sample, int64_t video, const VideoRange& range,
    const KeptRange& kept, Team& team, const TopkExchange& exchange, DrawStorage& storage) {
  int64_t* const index = draw.index + sample * draw.total_keep;
  int64_t* const order = draw.order + sample * draw.total_keep;
  if (kept.size > 0) {
    const Span span = team.span(range.length());
    uint64_t* const result = reinterpret_cast<uint64_t*>(order) + kept.begin;
    uint64_t* const spare = draw.spare + sample * draw.total_keep + kept.begin;
    TeamSort sort(kept.size, team);
    uint64_t* const keys = sort.source(result, spare);
    // Where wrong offsets make videos overlap they write each other's ranks, and a place may get no row: it has this
    // one.
    for (int64_t at = team.rank() * kTeamThreads + threadIdx.x; at < kept.size; at += team.size() * kTeamThreads) {
      index[kept.begin + at] = range.begin;
      keys[at] = 0;
    }
    uint32_t* const ranks = draw.ranks + sample * batch.num_tokens + range.begin;
    perturb(
        draw.logits + range.begin, span, video_key(draw.seed, draw.num_seeds, video), static_cast<uint32_t>(sample),
        ranks);
    __syncthreads();
    const auto rank_at = [ranks](uint32_t i) { return ranks[i]; };
    const Threshold threshold = find_threshold(rank_at, span, kept.size, team, exchange, storage.topk);
    compact(
        rank_at, span, kept.size, threshold, team, exchange, storage.topk,
        [&](int64_t position, int64_t i, uint32_t rank) {
          if (position >= kept.size) return;
          index[kept.begin + position] = range.begin + i;
          keys[position] = static_cast<uint64_t>(~rank) << 32 | static_cast<uint64_t>(i);
        });
    team.sync();
    sort.run(result, spare, team, storage.sort, [&](int64_t j, uint64_t key) {
      order[kept.begin + j] = range.begin + static_cast<int64_t>(key & 0xFFFFFFFFu);
    });
  }
  // As in select: what budgets leave over still has to be a row.
  if (video == batch.num_videos - 1 && team.rank() == 0) {
    for (int64_t at = kept.begin + kept.size + threadIdx.x; at < draw.total_keep; at += kTeamThreads) {
      index[at] = order[at] = 0;
    }
  }
}

__global__ void __launch_bounds__(kTeamThreads) draw_by_block(Draw draw, PackedBatch batch, const int32_t* keep) {
  __shared__ KeptStorage<kTeamThreads> kept_storage;
  __shared__ DrawStorage storage;
  const int64_t sample = blockIdx.x / batch.num_videos, video = blockIdx.x % batch.num_videos;
  const KeptRange kept = kept_range<kTeamThreads>(batch, keep, draw.total_keep, video, kept_storage);
  Team team;
  draw_rows(draw, batch, sample, video, video_range(batch, video), kept, team, {}, storage);
}

__global__ void __launch_bounds__(kTeamThreads)
    draw_by_team(Draw draw, PackedBatch batch, TeamGrid grid, TopkExchanges exchanges) {
  __shared__ DrawStorage storage;
  const TeamSeat seat = grid.seat();
  if (seat.video < 0) return;
  const int64_t sample = grid.sample(), number = sample * batch.num_videos + seat.video;
  Team team = grid.team(seat, number);
  draw_rows(
      draw, batch, sample, seat.video, {seat.begin, seat.end}, {seat.kept_begin, seat.kept_size}, team,
      exchanges.exchange(number, seat.rank), storage);
}

}  // namespace

cudaError_t gumbel_topk(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order, void* workspace, size_t* workspace_bytes,
    cudaStream_t stream) {
  const int64_t tasks = num_samples * batch.num_videos;
  int num_seats = 0;
  if (cudaError_t error = count_seats(batch, num_samples, &num_seats)) return error;
  Workspace memory(workspace);
  uint64_t* const spare = memory.take<uint64_t>(num_samples * total_keep);
  uint32_t* const ranks = memory.take<uint32_t>(num_samples * batch.num_tokens);
  const TeamGrid grid = memory.take_grid(num_samples, batch.num_videos, num_seats);
  const TopkExchanges exchanges = TopkExchanges::take(memory, num_seats > 0 ? tasks : 0, num_samples * num_seats);
  if (workspace == nullptr) {
    *workspace_bytes = memory.bytes();
    return cudaSuccess;
  }
  if (tasks == 0 || total_keep == 0) return cudaSuccess;
  if (tasks > kMaxGrid) return cudaErrorInvalidConfiguration;
  const Draw draw{logits, seed, num_seeds, total_keep, ranks, index, order, spare};
  if (num_seats == 0) {
    SCORE_LAUNCH(draw_by_block, grid_size(tasks), kTeamThreads, 0, stream, draw, batch, keep);
    return cudaGetLastError();
  }
  if (cudaError_t error =
          plan_teams(grid, batch, keep, total_keep, exchanges.histograms, kDigits, kDigitPasses * kDigits, stream)) {
    return error;
  }
  return launch_cooperative(
      draw_by_team, grid_size(num_samples * num_seats), kTeamThreads, stream, draw, batch, grid, exchanges);
}

}  // namespace score::cuda
