// plackett_luce_log_prob: the log-probability of an ordered draw without replacement (Plackett 1975), and its gradient.
//
//   log P = sum_j [ l_j - log Z_j ],   Z_j = sum of exp(l_i) over the tokens of the video not drawn before j
//   d log P / d l_i = [i drawn] - sum over the steps j at which i could still be drawn of exp(l_i) / Z_j
//
// Z_j is summed backwards from the tokens never drawn: only additions of positive numbers, so nothing cancels however
// sure the policy is. Sums are kept in double relative to a reference that moves when they would leave its range.
// Errors do not grow with the logits until doubles themselves are too coarse for them, at 1e9 or so.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kept.h"
#include "kernels.h"
#include "parallel.h"
#include "score/transcendental.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// log of a growing sum of exponentials.
class LogSum {
 public:
  explicit LogSum(double log_value) : reference_(log_value), sum_(log_value == -kInfinity ? 0.0 : 1.0) {}

  void add(double log_term) {
    if (log_term == -kInfinity) return;
    if (sum_ == 0.0 || log_term - reference_ > kRange) {
      sum_ *= std::exp(reference_ == -kInfinity ? 0.0 : reference_ - log_term);
      reference_ = log_term;
    }
    sum_ += std::exp(log_term - reference_);
  }

  double log() const { return reference_ + std::log(sum_); }
  // exp(log_factor) times the sum; small however large the two logs are.
  double times(double log_factor) const { return std::exp(log_factor + reference_) * sum_; }

 private:
  static constexpr double kRange = 600.0;  // exp of it is far from a double's end
  double reference_;
  double sum_;
};

// Tokens already drawn are marked by a penalty of +inf on their logit, 0 for the others: then the loops over a video
// take no branch.
constexpr float kDrawn = std::numeric_limits<float>::infinity();

struct Rest {
  float max;   // largest logit of the tokens not drawn, -inf if there are none
  bool valid;  // no NaN, no +inf among the logits
};

SCORE_CLONES Rest summarize_rest(const float* logits, const float* penalty, int64_t length) {
  float max = -kDrawn;
  int32_t invalid = 0;
#pragma omp simd reduction(max : max) reduction(| : invalid)
  for (int64_t i = 0; i < length; ++i) {
    const float logit = logits[i] - penalty[i];
    invalid |= !(logits[i] < kDrawn);
    max = logit > max ? logit : max;
  }
  return {max, invalid == 0};
}

SCORE_CLONES double sum_exponentials(const float* logits, const float* penalty, int64_t length, float max) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < length; ++i) sum += exp_negative(max - (logits[i] - penalty[i]));
  return sum;
}

// log_z [keep] of the drawn logits, where floats relative to the largest logit have the range for it; false where not.
SCORE_CLONES bool remaining_logs(
    const float* drawn_logits, int64_t keep, float rest_max, double log_rest, double* log_z) {
  constexpr float kRange = 60.0f;  // exp(-60) is far above the smallest float
  float min = rest_max, max = rest_max;
#pragma omp simd reduction(min : min) reduction(max : max)
  for (int64_t j = 0; j < keep; ++j) {
    min = drawn_logits[j] < min ? drawn_logits[j] : min;
    max = drawn_logits[j] > max ? drawn_logits[j] : max;
  }
  if (!(max - min < kRange)) return false;
#pragma omp simd
  for (int64_t j = 0; j < keep; ++j) log_z[j] = exp_negative(max - drawn_logits[j]);
  double sum = std::exp(log_rest - max);
  for (int64_t j = keep - 1; j >= 0; --j) log_z[j] = sum += log_z[j];
#pragma omp simd
  for (int64_t j = 0; j < keep; ++j) log_z[j] = static_cast<double>(max) + log_positive(static_cast<float>(log_z[j]));
  return true;
}

SCORE_CLONES double sum_steps(const float* drawn_logits, int64_t keep, const double* log_z) {
  double total = 0.0;
#pragma omp simd reduction(+ : total)
  for (int64_t j = 0; j < keep; ++j) total += drawn_logits[j] - log_z[j];
  return total;
}

struct LogProbability {
  double value;    // NaN where the logits have NaN or +inf
  float rest_max;  // as in Rest
};

// One video and sample. logits [length]; order [keep] holds rows from `base` on; penalty [length] is scratch of zeros.
// Writes the drawn logits [keep] in order and log Z_j [keep].
LogProbability log_probability(
    const float* logits, int64_t length, const int64_t* order, int64_t keep, int64_t base, float* penalty,
    float* drawn_logits, double* log_z) {
  if (keep == 0) return {0.0, -kDrawn};
  for (int64_t j = 0; j < keep; ++j) {
    penalty[order[j] - base] = kDrawn;
    drawn_logits[j] = logits[order[j] - base];
  }
  const Rest rest = summarize_rest(logits, penalty, length);
  if (!rest.valid) {
    std::fill(log_z, log_z + keep, std::nan(""));
    return {std::nan(""), rest.max};
  }
  const double log_rest =
      rest.max == -kInfinity ? -kInfinity : rest.max + std::log(sum_exponentials(logits, penalty, length, rest.max));
  if (log_rest > -kInfinity && remaining_logs(drawn_logits, keep, rest.max, log_rest, log_z)) {
    return {sum_steps(drawn_logits, keep, log_z), rest.max};
  }
  LogSum remaining(log_rest);
  double total = 0.0;
  for (int64_t j = keep - 1; j >= 0; --j) {
    const double logit = drawn_logits[j];
    remaining.add(logit);
    log_z[j] = remaining.log();
    total += logit == -kInfinity ? -kInfinity : logit - log_z[j];
  }
  return {total, rest.max};
}

// For the tokens not drawn, the largest logit of which is rest_max: exp(logit - rest_max) * largest_share.
SCORE_CLONES void subtract_shares(
    const float* logits, const float* penalty, int64_t length, float rest_max, float largest_share,
    float* grad_logits) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    grad_logits[i] -= largest_share * exp_negative(rest_max - (logits[i] - penalty[i]));
  }
}

// Adds grad * d log P / d logits of one video and sample to grad_logits [length].
void add_gradient(
    const float* logits, int64_t length, const int64_t* order, int64_t keep, int64_t base, const float* penalty,
    const double* log_z, float rest_max, float grad, float* grad_logits) {
  if (std::isnan(log_z[0])) {
    std::fill(grad_logits, grad_logits + length, std::nanf(""));
    return;
  }
  LogSum inverse(-kInfinity);  // sum of 1 / Z_j over the steps so far
  for (int64_t j = 0; j < keep; ++j) {
    const int64_t row = order[j] - base;
    inverse.add(-log_z[j]);
    grad_logits[row] += grad * static_cast<float>(1.0 - inverse.times(logits[row]));
  }
  if (rest_max == -kDrawn) return;  // nothing was left, or nothing that could be drawn
  subtract_shares(logits, penalty, length, rest_max, grad * static_cast<float>(inverse.times(rest_max)), grad_logits);
}

}  // namespace

void plackett_luce_log_prob(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, float* log_prob) {
  const std::vector<int64_t> first = kept_begins(keep, batch.num_videos);
  parallel_for(num_samples * batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> penalty;
    std::vector<float> drawn_logits;
    std::vector<double> log_z;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t video = item % batch.num_videos;
      const VideoRange range = video_range(batch, video);
      penalty.assign(range.length(), 0.0f);
      drawn_logits.resize(keep[video]);
      log_z.resize(keep[video]);
      const int64_t* drawn_order = order + item / batch.num_videos * total_keep + first[video];
      const LogProbability result = log_probability(
          logits + range.begin, range.length(), drawn_order, keep[video], range.begin, penalty.data(),
          drawn_logits.data(), log_z.data());
      log_prob[item] = static_cast<float>(result.value);
    }
  });
}

void plackett_luce_log_prob_backward(
    const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
    int64_t num_samples, const int64_t* order, float* grad_logits) {
  const std::vector<int64_t> first = kept_begins(keep, batch.num_videos);
  std::fill(grad_logits, grad_logits + batch.num_tokens, 0.0f);
  parallel_for(batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> penalty;
    std::vector<float> drawn_logits;
    std::vector<double> log_z;
    for (int64_t video = begin; video < end; ++video) {
      if (keep[video] == 0) continue;
      const VideoRange range = video_range(batch, video);
      drawn_logits.resize(keep[video]);
      log_z.resize(keep[video]);
      for (int64_t sample = 0; sample < num_samples; ++sample) {
        const int64_t* drawn_order = order + sample * total_keep + first[video];
        penalty.assign(range.length(), 0.0f);
        const LogProbability result = log_probability(
            logits + range.begin, range.length(), drawn_order, keep[video], range.begin, penalty.data(),
            drawn_logits.data(), log_z.data());
        add_gradient(
            logits + range.begin, range.length(), drawn_order, keep[video], range.begin, penalty.data(), log_z.data(),
            result.rest_max, grad[sample * batch.num_videos + video], grad_logits + range.begin);
      }
    }
  });
}

}  // namespace score::cpu
