// select: exactly keep[b] rows of each video, by rank or by systematic sampling.
#include <memory>
#include <vector>

#include "kept.h"
#include "kernels.h"
#include "parallel.h"
#include "score/ordering.h"
#include "simd.h"
#include "systematic.h"
#include "topk.h"

namespace score::cpu {
namespace {

constexpr int64_t kGrain = 1 << 16;  // tokens worth a thread of their own

SCORE_CLONES void rank_scores(const float* scores, int64_t length, uint32_t* rank) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) rank[i] = rank_bits(scores[i]);
}

}  // namespace

void select(
    const float* scores, const PackedBatch& batch, const int32_t* keep, SelectionRule selection, double offset,
    int64_t* index) {
  const std::vector<int64_t> first = kept_begins(keep, batch.num_videos);
  parallel_for(batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    for (int64_t video = begin; video < end; ++video) {
      const VideoRange range = video_range(batch, video);
      const float* video_scores = scores + range.begin;
      if (selection == SelectionRule::kSystematic) {
        systematic_rows(video_scores, range.length(), keep[video], offset, range.begin, index + first[video]);
        continue;
      }
      const auto rank = std::make_unique_for_overwrite<uint32_t[]>(range.length());
      Chunks(range.length(), kGrain).run([&](int64_t, int64_t chunk_begin, int64_t chunk_end) {
        rank_scores(video_scores + chunk_begin, chunk_end - chunk_begin, rank.get() + chunk_begin);
      });
      top_rows(rank.get(), range.length(), keep[video], range.begin, index + first[video]);
    }
  });
}

}  // namespace score::cpu
