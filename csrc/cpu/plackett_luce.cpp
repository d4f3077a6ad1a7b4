// plackett_luce: the log-probability of an ordered draw without replacement (Plackett 1975), and its gradient.
//
//   log P = sum_j [ l_j - log Z_j ],   Z_j = sum of exp(l_i) over the tokens of the video not drawn before j
//   d log P / d l_i = [i drawn] - sum over the steps j at which i could still be drawn of exp(l_i) / Z_j
//
// Z_j is summed backwards from the tokens never drawn: only additions of positive numbers, so nothing cancels however
// sure the policy is. Sums are kept in double relative to a reference that moves when they would leave its range.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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

 private:
  static constexpr double kRange = 600.0;  // exp of it is far from a double's end
  double reference_;
  double sum_;
};

struct Extremes {
  float max;
  bool valid;  // no NaN, no +inf
};

SCORE_CLONES Extremes extremes(const float* logits, const uint8_t* drawn, int64_t length) {
  float max = -std::numeric_limits<float>::infinity();
  int32_t invalid = 0;
#pragma omp simd reduction(max : max) reduction(| : invalid)
  for (int64_t i = 0; i < length; ++i) {
    invalid |= !(logits[i] < std::numeric_limits<float>::infinity());
    const float logit = drawn[i] ? -std::numeric_limits<float>::infinity() : logits[i];
    max = logit > max ? logit : max;
  }
  return {max, invalid == 0};
}

SCORE_CLONES double sum_exponentials(const float* logits, const uint8_t* drawn, int64_t length, float max) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < length; ++i) {
    const float e = exp_negative(max - logits[i]);
    sum += drawn[i] ? 0.0f : e;
  }
  return sum;
}

// One video and sample. logits [length]; order [keep] holds rows from `base` on; drawn [length] is scratch of zeros.
// Writes log Z_j to log_z [keep] and returns log P, NaN where the logits have NaN or +inf.
double log_probability(
    const float* logits, int64_t length, const int64_t* order, int64_t keep, int64_t base, uint8_t* drawn,
    double* log_z) {
  if (keep == 0) return 0.0;
  for (int64_t j = 0; j < keep; ++j) drawn[order[j] - base] = 1;
  const Extremes rest = extremes(logits, drawn, length);
  if (!rest.valid) {
    std::fill(log_z, log_z + keep, std::nan(""));
    return std::nan("");
  }
  const double log_rest =
      rest.max == -kInfinity ? -kInfinity : rest.max + std::log(sum_exponentials(logits, drawn, length, rest.max));
  LogSum remaining(log_rest);
  double total = 0.0;
  for (int64_t j = keep - 1; j >= 0; --j) {
    const double logit = logits[order[j] - base];
    remaining.add(logit);
    log_z[j] = remaining.log();
    total += logit == -kInfinity ? -kInfinity : logit - log_z[j];
  }
  return total;
}

SCORE_CLONES void subtract_shares(
    const float* logits, const uint8_t* drawn, int64_t length, float log_count, float grad, float* grad_logits) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) {
    const float exponent = -(logits[i] + log_count);
    const float share = exponent > 0.0f ? exp_negative(exponent) : 1.0f / exp_negative(-exponent);
    grad_logits[i] -= drawn[i] ? 0.0f : grad * share;
  }
}

// Adds grad * d log P / d logits of one video and sample to grad_logits [length].
void add_gradient(
    const float* logits, int64_t length, const int64_t* order, int64_t keep, int64_t base, const uint8_t* drawn,
    const double* log_z, float grad, float* grad_logits) {
  if (std::isnan(log_z[0])) {
    std::fill(grad_logits, grad_logits + length, std::nanf(""));
    return;
  }
  LogSum inverse(-kInfinity);  // sum of 1 / Z_j over the steps so far
  for (int64_t j = 0; j < keep; ++j) {
    const int64_t row = order[j] - base;
    inverse.add(-log_z[j]);
    grad_logits[row] += grad * static_cast<float>(1.0 - std::exp(logits[row] + inverse.log()));
  }
  subtract_shares(logits, drawn, length, static_cast<float>(inverse.log()), grad, grad_logits);
}

std::vector<int64_t> offsets(const int32_t* keep, int64_t num_videos) {
  std::vector<int64_t> first(num_videos + 1, 0);
  for (int64_t video = 0; video < num_videos; ++video) first[video + 1] = first[video] + keep[video];
  return first;
}

}  // namespace

void plackett_luce(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, float* log_prob) {
  const std::vector<int64_t> first = offsets(keep, batch.num_videos);
  parallel_for(num_samples * batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> drawn;
    std::vector<double> log_z;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t video = item % batch.num_videos;
      const VideoRange range = video_range(batch, video);
      drawn.assign(range.length(), 0);
      log_z.resize(keep[video]);
      const int64_t* drawn_order = order + item / batch.num_videos * total_keep + first[video];
      log_prob[item] = static_cast<float>(log_probability(
          logits + range.begin, range.length(), drawn_order, keep[video], range.begin, drawn.data(), log_z.data()));
    }
  });
}

void plackett_luce_backward(
    const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
    int64_t num_samples, const int64_t* order, float* grad_logits) {
  const std::vector<int64_t> first = offsets(keep, batch.num_videos);
  std::fill(grad_logits, grad_logits + batch.num_tokens, 0.0f);
  parallel_for(batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> drawn;
    std::vector<double> log_z;
    for (int64_t video = begin; video < end; ++video) {
      if (keep[video] == 0) continue;
      const VideoRange range = video_range(batch, video);
      log_z.resize(keep[video]);
      for (int64_t sample = 0; sample < num_samples; ++sample) {
        const int64_t* drawn_order = order + sample * total_keep + first[video];
        drawn.assign(range.length(), 0);
        log_probability(
            logits + range.begin, range.length(), drawn_order, keep[video], range.begin, drawn.data(), log_z.data());
        add_gradient(
            logits + range.begin, range.length(), drawn_order, keep[video], range.begin, drawn.data(), log_z.data(),
            grad[sample * batch.num_videos + video], grad_logits + range.begin);
      }
    }
  });
}

}  // namespace score::cpu
