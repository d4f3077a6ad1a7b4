// select: exactly keep[b] rows of each video, by rank or by systematic sampling. A team per video.
//
// Measured on an H200 in a CUDA graph, one video, a tenth kept: 40,000 tokens topk 17 us, systematic 40; a million 26
// and 60. A barrier of the grid is 1.05 us of that: topk has 3 or 4, systematic one and one for each step of its
// solver. The scores are read once from memory (4 bytes a token), then from caches.
#include "kernels.h"
#include "launch.cuh"
#include "score/ordering.h"
#include "systematic.cuh"
#include "team.cuh"
#include "topk.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

struct TopkRule {
  using Storage = TopkStorage;
  using Exchange = TopkExchange;
  using Exchanges = TopkExchanges;

  template <typename Emit>
  __device__ void operator()(
      const float* scores, int64_t length, int64_t keep, Team& team, const Exchange& exchange, Storage& storage,
      Emit emit) const {
    const auto rank_at = [scores](uint32_t i) { return rank_bits(__ldg(scores + i)); };
    const Span span = team.span(length);
    const Threshold threshold = find_threshold(rank_at, span, keep, team, exchange, storage);
    compact(rank_at, span, keep, threshold, team, exchange, storage, [&](int64_t position, int64_t i, uint32_t) {
      emit(position, i);
    });
  }
};

struct SystematicRule {
  using Storage = SystematicStorage;
  using Exchange = SystematicExchange;
  using Exchanges = SystematicExchanges;
  double offset;

  template <typename Emit>
  __device__ void operator()(
      const float* scores, int64_t length, int64_t keep, Team& team, const Exchange& exchange, Storage& storage,
      Emit emit) const {
    SystematicSelection(scores, length, team, exchange, storage).run(keep, offset, emit);
  }
};

// index [total_keep]. Called by all blocks of a video's team.
template <typename Rule>
__device__ void select_rows(
    const float* scores, const PackedBatch& batch, int64_t video, const VideoRange& range, const KeptRange& kept,
    int64_t total_keep, const Rule& rule, Team& team, const typename Rule::Exchange& exchange,
    typename Rule::Storage& storage, int64_t* index) {
  if (kept.size > 0) {
    rule(scores + range.begin, range.length(), kept.size, team, exchange, storage, [&](int64_t position, int64_t i) {
      if (position < kept.size) index[kept.begin + position] = range.begin + i;
    });
  }
  // Budgets that fall short of total_keep are the caller's mistake; what they leave over still has to be a row.
  if (video == batch.num_videos - 1 && team.rank() == 0) {
    for (int64_t at = kept.begin + kept.size + threadIdx.x; at < total_keep; at += kTeamThreads) index[at] = 0;
  }
}

template <typename Rule>
__global__ void __launch_bounds__(kTeamThreads) select_by_block(
    const float* scores, PackedBatch batch, const int32_t* keep, int64_t total_keep, Rule rule, int64_t* index) {
  __shared__ KeptStorage<kTeamThreads> kept_storage;
  __shared__ typename Rule::Storage storage;
  const int64_t video = blockIdx.x;
  const VideoRange range = video_range(batch, video);
  const KeptRange kept = kept_range<kTeamThreads>(batch, keep, total_keep, video, kept_storage);
  Team team;
  select_rows(scores, batch, video, range, kept, total_keep, rule, team, {}, storage, index);
}

template <typename Rule>
__device__ void select_by_team(
    const float* scores, const PackedBatch& batch, const TeamGrid& grid, int64_t total_keep, const Rule& rule,
    const typename Rule::Exchanges& exchanges, typename Rule::Storage& storage, int64_t* index) {
  const TeamSeat seat = grid.seat();
  if (seat.video < 0) return;
  Team team = grid.team(seat, seat.video);
  const VideoRange range{seat.begin, seat.end};
  const KeptRange kept{seat.kept_begin, seat.kept_size};
  select_rows(
      scores, batch, seat.video, range, kept, total_keep, rule, team, exchanges.exchange(seat.video, seat.rank),
      storage, index);
}

__global__ void __launch_bounds__(kTeamThreads) topk_by_team(
    const float* scores, PackedBatch batch, TeamGrid grid, int64_t total_keep, TopkRule rule, TopkExchanges exchanges,
    int64_t* index) {
  __shared__ TopkStorage storage;
  select_by_team(scores, batch, grid, total_keep, rule, exchanges, storage, index);
}

__global__ void __launch_bounds__(kTeamThreads) systematic_by_team(
    const float* scores, PackedBatch batch, TeamGrid grid, int64_t total_keep, SystematicRule rule,
    SystematicExchanges exchanges, int64_t* index) {
  __shared__ SystematicStorage storage;
  select_by_team(scores, batch, grid, total_keep, rule, exchanges, storage, index);
}

template <typename Rule>
cudaError_t launch_blocks(
    const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, Rule rule, int64_t* index,
    cudaStream_t stream) {
  SCORE_LAUNCH(
      select_by_block<Rule>, grid_size(batch.num_videos), kTeamThreads, 0, stream, scores, batch, keep, total_keep,
      rule, index);
  return cudaGetLastError();
}

// What the teams of one call share, cut out of its workspace.
template <typename Exchanges>
struct Shared {
  Workspace workspace;
  TeamGrid grid;
  Exchanges exchanges;

  Shared(void* memory, const PackedBatch& batch, int num_seats)
      : workspace(memory),
        grid(workspace.take_grid(1, batch.num_videos, num_seats)),
        exchanges(Exchanges::take(workspace, batch.num_videos, num_seats)) {}
};

}  // namespace

cudaError_t select_workspace(const PackedBatch& batch, int64_t total_keep, SelectionRule selection, size_t* bytes) {
  *bytes = 0;
  if (total_keep == 0) return cudaSuccess;
  int num_seats = 0;
  if (cudaError_t error = count_seats(batch, 1, &num_seats)) return error;
  if (num_seats == 0) return cudaSuccess;
  *bytes = selection == SelectionRule::kTopK ? Shared<TopkExchanges>(nullptr, batch, num_seats).workspace.bytes()
                                             : Shared<SystematicExchanges>(nullptr, batch, num_seats).workspace.bytes();
  return cudaSuccess;
}

cudaError_t select(
    const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, SelectionRule selection,
    double offset, int64_t* index, void* workspace, cudaStream_t stream) {
  if (total_keep == 0 || batch.num_videos == 0) return cudaSuccess;
  const TopkRule topk;
  const SystematicRule systematic{offset};
  if (workspace == nullptr) {
    return selection == SelectionRule::kTopK
               ? launch_blocks(scores, batch, keep, total_keep, topk, index, stream)
               : launch_blocks(scores, batch, keep, total_keep, systematic, index, stream);
  }
  int num_seats = 0;
  if (cudaError_t error = count_seats(batch, 1, &num_seats)) return error;
  if (selection == SelectionRule::kTopK) {
    const Shared<TopkExchanges> shared(workspace, batch, num_seats);
    if (cudaError_t error = plan_teams(
            shared.grid, batch, keep, total_keep, shared.exchanges.histograms, kDigits, kDigitPasses * kDigits,
            stream)) {
      return error;
    }
    return launch_cooperative(
        topk_by_team, grid_size(num_seats), kTeamThreads, stream, scores, batch, shared.grid, total_keep, topk,
        shared.exchanges, index);
  }
  const Shared<SystematicExchanges> shared(workspace, batch, num_seats);
  if (cudaError_t error = plan_teams(shared.grid, batch, keep, total_keep, nullptr, 0, 0, stream)) return error;
  return launch_cooperative(
      systematic_by_team, grid_size(num_seats), kTeamThreads, stream, scores, batch, shared.grid, total_keep,
      systematic, shared.exchanges, index);
}

}  // namespace score::cuda
