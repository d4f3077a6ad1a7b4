#include "systematic.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "parallel.h"
#include "score/systematic.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // tokens worth a thread of their own

struct ProbabilitySums {
  int64_t probability;
  int64_t slope;
  int64_t tokens;
};

SCORE_CLONES LogitSummary summarize(const float* logits, int64_t length) {
  int64_t certain = 0, finite = 0;
  float min = std::numeric_limits<float>::infinity(), max = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(+ : certain, finite) reduction(min : min) reduction(max : max)
  for (int64_t i = 0; i < length; ++i) {
    const float logit = logits[i];
    const bool is_finite = logit >= -kInfiniteLogit && logit <= kInfiniteLogit;
    certain += logit > kInfiniteLogit;
    finite += is_finite;
    const float low = is_finite ? logit : std::numeric_limits<float>::infinity();
    const float high = is_finite ? logit : -std::numeric_limits<float>::infinity();
    min = low < min ? low : min;
    max = high > max ? high : max;
  }
  return {certain, finite, min, max};
}

// Over every stride-th finite token of [begin, end): its probability under `shift`, and the sums of it and its slope.
// probability [length] takes the fixed-point values where stride is 1, 0 for tokens that are not finite.
SCORE_CLONES ProbabilitySums sum_probabilities(
    const float* logits, int64_t begin, int64_t end, int64_t stride, float shift, int32_t* probability) {
  int64_t sum = 0, slope = 0, tokens = 0;
#pragma omp simd reduction(+ : sum, slope, tokens)
  for (int64_t i = begin; i < end; i += stride) {
    const float logit = logits[i];
    const bool is_finite = logit >= -kInfiniteLogit && logit <= kInfiniteLogit;
    const int32_t p = is_finite ? sigmoid_fixed(add_rn(logit, shift)) : 0;
    probability[i] = p;
    sum += p;
    slope += slope_fixed(p);
    tokens += is_finite;
  }
  return {sum, slope, tokens};
}

ProbabilitySums sum_in_parallel(const float* logits, int64_t length, float shift, int32_t* probability) {
  const int64_t chunks = std::clamp<int64_t>(length / kGrain, 1, num_threads());
  std::vector<ProbabilitySums> partial(chunks);
  parallel_for(chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      partial[chunk] = sum_probabilities(
          logits, length * chunk / chunks, length * (chunk + 1) / chunks, 1, shift, probability);
    }
  });
  ProbabilitySums total{0, 0, 0};
  for (const ProbabilitySums& part : partial) {
    total.probability += part.probability;
    total.slope += part.slope;
    total.tokens += part.tokens;
  }
  return total;
}

// A start for the solver: the shift that fits a subsample of the tokens.
float start_shift(
    const float* logits, int64_t length, const LogitSummary& summary, int64_t target, int32_t* probability) {
  const float none = ShiftSolver::middle_start();
  const int64_t stride = std::max<int64_t>(1, length / kStartTokens);
  if (stride == 1) return none;
  const int64_t tokens = sum_probabilities(logits, 0, length, stride, 0.0f, probability).tokens;
  const double share = div_rn(static_cast<double>(target), static_cast<double>(summary.finite));
  const int64_t subsample_target = static_cast<int64_t>(mul_rn(share, static_cast<double>(tokens)));
  if (subsample_target == 0) return none;
  ShiftSolver solver(summary.min, summary.max, subsample_target, kStartPrecision, none);
  for (;;) {
    const ProbabilitySums sums = sum_probabilities(logits, 0, length, stride, solver.shift(), probability);
    if (solver.update(sums.probability, sums.slope)) return solver.shift();
  }
}

// probability [length]: fixed-point inclusion probabilities of the finite tokens that sum to `keep`. Returns the sum.
int64_t solve_probabilities(
    const float* logits, int64_t length, const LogitSummary& summary, int64_t keep, int32_t* probability) {
  const int64_t target = keep * kOne;
  const float start = start_shift(logits, length, summary, target, probability);
  ShiftSolver solver(summary.min, summary.max, target, kShiftPrecision, start);
  for (;;) {
    const float shift = solver.shift();
    const ProbabilitySums sums = sum_in_parallel(logits, length, shift, probability);
    if (!solver.update(sums.probability, sums.slope)) continue;
    if (solver.shift() == shift) return sums.probability;
    return sum_in_parallel(logits, length, solver.shift(), probability).probability;
  }
}

}  // namespace

void systematic_rows(
    const float* logits, int64_t length, int64_t keep, double offset, int64_t base, int64_t* index) {
  if (keep == 0) return;
  const LogitSummary summary = summarize(logits, length);
  const Marginal marginal = marginal_class(summary, length, keep);
  int64_t total = marginal.size * kOne;
  std::vector<int32_t> probability;
  if (marginal.needs_shift()) {
    probability.resize(length);
    total = solve_probabilities(logits, length, summary, marginal.keep, probability.data());
  }
  const Thresholds thresholds(total, marginal.keep, offset);
  int64_t written = 0, sum = 0, passed = 0;
  int64_t next = thresholds.threshold(0);
  for (int64_t i = 0; written < keep; ++i) {
    const int32_t klass = logit_class(logits[i]);
    bool kept = klass < marginal.klass;
    if (klass == marginal.klass) {
      sum += probability.empty() ? kOne : probability[i];
      if (passed < thresholds.keep() && next < sum) {
        kept = true;
        next = thresholds.threshold(++passed);
      }
    }
    index[written] = base + i;
    written += kept;
  }
}

}  // namespace score::cpu
