// gumbel_topk (Yellott 1977; Kool et al. 2019): adding independent Gumbel numbers to the logits and keeping the
// k largest draws k tokens without replacement, each time in proportion to exp(logit), from the largest key down.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "kept.h"
#include "kernels.h"
#include "parallel.h"
#include "random_words.h"
#include "score/ordering.h"
#include "score/transcendental.h"
#include "simd.h"
#include "topk.h"

namespace score::cpu {
namespace {

constexpr int64_t kGrainBlocks = 64;  // blocks of kWords tokens that are worth a thread of their own

// rank [length] of the perturbed logits of one video, its blocks first_block .. last_block of kWords tokens.
SCORE_CLONES void perturbed_ranks(
    const float* logits, int64_t length, int64_t first_block, int64_t last_block, int64_t seed, uint32_t sample,
    uint32_t video, uint32_t* rank) {
  uint32_t words[kWords];
  for (int64_t start = first_block * kWords; start < last_block * kWords; start += kWords) {
    random_words(seed, Stream::kGumbelTopk, sample, video, start, words);
    const int64_t count = std::min(kWords, length - start);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) rank[start + i] = rank_bits(add_rn(logits[start + i], gumbel(words[i])));
  }
}

// Sorts the rows of index [count], ascending, into order [count] by falling rank; equal ranks stay ascending.
// rank belongs to row `base` onwards.
void order_by_rank(const uint32_t* rank, int64_t base, const int64_t* index, int64_t count, int64_t* order) {
  constexpr int kDigitBits = 11;
  constexpr int kPasses = 3;
  constexpr uint32_t kMask = (1u << kDigitBits) - 1;
  struct Entry {
    uint32_t falling;  // complement of the rank: ascending order of it is falling rank
    uint32_t row;
  };
  auto entries = std::make_unique_for_overwrite<Entry[]>(count);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t row = static_cast<uint32_t>(index[i] - base);
    entries[i] = {~rank[row], row};
  }
  if (count < 1024) {
    std::stable_sort(
        entries.get(), entries.get() + count, [](const Entry& a, const Entry& b) { return a.falling < b.falling; });
  } else {
    auto sorted = std::make_unique_for_overwrite<Entry[]>(count);
    for (int pass = 0; pass < kPasses; ++pass) {
      const int shift = pass * kDigitBits;
      std::vector<int64_t> offset((1 << kDigitBits) + 1, 0);
      for (int64_t i = 0; i < count; ++i) ++offset[((entries[i].falling >> shift) & kMask) + 1];
      std::partial_sum(offset.begin(), offset.end(), offset.begin());
      for (int64_t i = 0; i < count; ++i) sorted[offset[(entries[i].falling >> shift) & kMask]++] = entries[i];
      entries.swap(sorted);
    }
  }
  for (int64_t i = 0; i < count; ++i) order[i] = base + entries[i].row;
}

}  // namespace

void gumbel_topk(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order) {
  const std::vector<int64_t> first = kept_begins(keep, batch.num_videos);
  parallel_for(num_samples * batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t sample = item / batch.num_videos;
      const int64_t video = item % batch.num_videos;
      const VideoRange range = video_range(batch, video);
      const VideoKey key = video_key(seed, num_seeds, video);
      const auto rank = std::make_unique_for_overwrite<uint32_t[]>(range.length());
      parallel_for((range.length() + kWords - 1) / kWords, kGrainBlocks, [&](int64_t first_block, int64_t last_block) {
        perturbed_ranks(
            logits + range.begin, range.length(), first_block, last_block, key.seed, static_cast<uint32_t>(sample),
            key.video, rank.get());
      });
      const int64_t at = sample * total_keep + first[video];
      top_rows(rank.get(), range.length(), keep[video], range.begin, index + at);
      order_by_rank(rank.get(), range.begin, index + at, keep[video], order + at);
    }
  });
}

}  // namespace score::cpu
