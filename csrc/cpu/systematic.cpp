#include "systematic.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
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
};

SCORE_INLINE bool is_finite(float logit) { return logit >= -kInfiniteLogit && logit <= kInfiniteLogit; }

SCORE_CLONES LogitSummary summarize(const float* logits, int64_t length) {
  int64_t certain = 0, finite = 0;
  float min = std::numeric_limits<float>::infinity(), max = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(+ : certain, finite) reduction(min : min) reduction(max : max)
  for (int64_t i = 0; i < length; ++i) {
    const float logit = logits[i];
    certain += logit > kInfiniteLogit;
    finite += is_finite(logit);
    const float low = is_finite(logit) ? logit : std::numeric_limits<float>::infinity();
    const float high = is_finite(logit) ? logit : -std::numeric_limits<float>::infinity();
    min = low < min ? low : min;
    max = high > max ? high : max;
  }
  return {certain, finite, min, max};
}

// probability [length]: of each finite token under `shift`, 0 for the others; and the sums of it and its slope.
SCORE_CLONES ProbabilitySums sum_probabilities(const float* logits, int64_t length, float shift, int32_t* probability) {
  int64_t sum = 0, slope = 0;
#pragma omp simd reduction(+ : sum, slope)
  for (int64_t i = 0; i < length; ++i) {
    const int32_t shifted = sigmoid_fixed(add_rn(logits[i], shift));
    const int32_t p = is_finite(logits[i]) ? shifted : 0;
    probability[i] = p;
    sum += p;
    slope += slope_fixed(p);
  }
  return {sum, slope};
}

LogitSummary summarize_in_parallel(const float* logits, int64_t length) {
  const Chunks chunks(length, kGrain);
  std::vector<LogitSummary> partial(chunks.count());
  chunks.run(
      [&](int64_t chunk, int64_t begin, int64_t end) { partial[chunk] = summarize(logits + begin, end - begin); });
  LogitSummary total = partial[0];
  for (int64_t chunk = 1; chunk < chunks.count(); ++chunk) {
    total.certain += partial[chunk].certain;
    total.finite += partial[chunk].finite;
    total.min = std::min(total.min, partial[chunk].min);
    total.max = std::max(total.max, partial[chunk].max);
  }
  return total;
}

ProbabilitySums sum_in_parallel(const float* logits, int64_t length, float shift, int32_t* probability) {
  const Chunks chunks(length, kGrain);
  std::vector<ProbabilitySums> partial(chunks.count());
  chunks.run([&](int64_t chunk, int64_t begin, int64_t end) {
    partial[chunk] = sum_probabilities(logits + begin, end - begin, shift, probability + begin);
  });
  ProbabilitySums total{0, 0};
  for (const ProbabilitySums& part : partial) {
    total.probability += part.probability;
    total.slope += part.slope;
  }
  return total;
}

// A start for the solver: the shift that fits every stride-th token.
float start_shift(const float* logits, int64_t length, const LogitSummary& summary, int64_t target) {
  const float none = ShiftSolver::middle_start();
  const int64_t stride = std::max<int64_t>(1, length / kStartTokens);
  if (stride == 1) return none;
  std::vector<float> subsample;
  int64_t finite = 0;
  for (int64_t i = 0; i < length; i += stride) {
    subsample.push_back(logits[i]);
    finite += is_finite(logits[i]);
  }
  const double share = div_rn(static_cast<double>(target), static_cast<double>(summary.finite));
  const int64_t subsample_target = static_cast<int64_t>(mul_rn(share, static_cast<double>(finite)));
  if (subsample_target == 0) return none;
  const int64_t tokens = static_cast<int64_t>(subsample.size());
  std::vector<int32_t> probability(tokens);
  ShiftSolver solver(summary.min, summary.max, subsample_target, kStartPrecision, none);
  for (;;) {
    const ProbabilitySums sums = sum_probabilities(subsample.data(), tokens, solver.shift(), probability.data());
    if (solver.update(sums.probability, sums.slope)) return solver.shift();
  }
}

// probability [length]: fixed-point inclusion probabilities of the finite tokens that sum to `keep`. Returns the sum.
int64_t solve_probabilities(
    const float* logits, int64_t length, const LogitSummary& summary, int64_t keep, int32_t* probability) {
  const int64_t target = keep * kOne;
  ShiftSolver solver(summary.min, summary.max, target, kShiftPrecision, start_shift(logits, length, summary, target));
  for (;;) {
    const float shift = solver.shift();
    const ProbabilitySums sums = sum_in_parallel(logits, length, shift, probability);
    if (!solver.update(sums.probability, sums.slope)) continue;
    if (solver.shift() == shift) return sums.probability;
    return sum_in_parallel(logits, length, solver.shift(), probability).probability;
  }
}

// Logits above this are of a class before the marginal one, and kept outright.
float outright_limit(const Marginal& marginal) {
  if (marginal.klass == kCertain) return std::numeric_limits<float>::infinity();
  return marginal.klass == kFinite ? kInfiniteLogit : std::nextafter(-kInfiniteLogit, -kInfiniteLogit * 2.0f);
}

// What a chunk of tokens adds to the walk.
struct Stretch {
  int64_t probability;
  int64_t outright;  // tokens kept whatever the thresholds say
};

SCORE_CLONES Stretch measure(const float* logits, const int32_t* probability, int64_t length, float limit) {
  int64_t sum = 0, outright = 0;
#pragma omp simd reduction(+ : sum, outright)
  for (int64_t i = 0; i < length; ++i) {
    sum += probability[i];
    outright += logits[i] > limit;
  }
  return {sum, outright};
}

// Walks tokens begin .. until `count` are kept. sum: of the probabilities before them.
void walk(
    const float* logits, const int32_t* probability, int64_t begin, int64_t count, int64_t sum, float limit,
    const Thresholds& thresholds, int64_t base, int64_t* index) {
  int64_t passed = thresholds.passed(sum);
  const auto threshold = [&] {
    return passed < thresholds.keep() ? thresholds.threshold(passed) : std::numeric_limits<int64_t>::max();
  };
  int64_t next = threshold();
  for (int64_t i = begin, written = 0; written < count; ++i) {
    bool kept = logits[i] > limit;
    sum += probability[i];
    if (next < sum) {
      kept = true;
      ++passed;
      next = threshold();
    }
    index[written] = base + i;  // overwritten by the next token unless this one is kept
    written += kept;
  }
}

}  // namespace

void systematic_rows(const float* logits, int64_t length, int64_t keep, double offset, int64_t base, int64_t* index) {
  if (keep == 0) return;
  const LogitSummary summary = summarize_in_parallel(logits, length);
  const Marginal marginal = marginal_class(summary, length, keep);
  const auto probability = std::make_unique_for_overwrite<int32_t[]>(length);
  int64_t total = marginal.size * kOne;
  if (marginal.needs_shift()) {
    total = solve_probabilities(logits, length, summary, marginal.keep, probability.get());
  } else {
    for (int64_t i = 0; i < length; ++i) probability[i] = logit_class(logits[i]) == marginal.klass ? kOne : 0;
  }

  const Thresholds thresholds(total, marginal.keep, offset);
  const float limit = outright_limit(marginal);
  const Chunks chunks(length, kGrain);
  std::vector<Stretch> stretches(chunks.count());
  chunks.run([&](int64_t chunk, int64_t begin, int64_t end) {
    stretches[chunk] = measure(logits + begin, probability.get() + begin, end - begin, limit);
  });
  chunks.run([&](int64_t chunk, int64_t begin, int64_t) {
    int64_t sum = 0, outright = 0;
    for (int64_t before = 0; before < chunk; ++before) {
      sum += stretches[before].probability;
      outright += stretches[before].outright;
    }
    const int64_t passed = thresholds.passed(sum);
    const int64_t passing = thresholds.passed(sum + stretches[chunk].probability) - passed;
    walk(
        logits, probability.get(), begin, passing + stretches[chunk].outright, sum, limit, thresholds, base,
        index + passed + outright);
  });
}

}  // namespace score::cpu
