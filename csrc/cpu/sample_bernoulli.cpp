// sample_bernoulli: every token kept or dropped by itself, with probability sigmoid(logit).
#include <algorithm>

#include "kernels.h"
#include "parallel.h"
#include "random_words.h"
#include "score/transcendental.h"
#include "simd.h"

namespace score::cpu {
namespace {

struct Outcome {
  double log_prob;
  int64_t count;
};

// One video and sample: logits and mask [length].
SCORE_CLONES Outcome
sample_video(const float* logits, int64_t length, int64_t seed, uint32_t sample, uint32_t video, uint8_t* mask) {
  uint32_t words[kWords];
  double log_prob = 0.0;
  int64_t kept = 0;
  for (int64_t start = 0; start < length; start += kWords) {
    random_words(seed, Stream::kBernoulli, sample, video, start, words);
    const int64_t count = std::min(kWords, length - start);
    float block_log_prob = 0.0f;  // of few enough tokens for a float
    int32_t block_kept = 0;
#pragma omp simd reduction(+ : block_log_prob, block_kept)
    for (int64_t i = 0; i < count; ++i) {
      const float logit = logits[start + i];
      const int32_t keep = bernoulli(words[i], logit);
      mask[start + i] = static_cast<uint8_t>(keep);
      block_log_prob += log_sigmoid(keep ? logit : -logit);
      block_kept += keep;
    }
    log_prob += block_log_prob;
    kept += block_kept;
  }
  return {log_prob, kept};
}

}  // namespace

void sample_bernoulli(
    const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
    bool* mask, float* log_prob, int32_t* count) {
  parallel_for(num_samples * batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t sample = item / batch.num_videos;
      const int64_t video = item % batch.num_videos;
      const VideoRange range = video_range(batch, video);
      const VideoKey key = video_key(seed, num_seeds, video);
      const Outcome outcome = sample_video(
          logits + range.begin, range.length(), key.seed, static_cast<uint32_t>(sample), key.video,
          reinterpret_cast<uint8_t*>(mask) + sample * batch.num_tokens + range.begin);
      log_prob[item] = static_cast<float>(outcome.log_prob);
      count[item] = static_cast<int32_t>(outcome.count);
    }
  });
}

}  // namespace score::cpu
