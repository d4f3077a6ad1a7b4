// Systematic sampling with unequal probabilities (Madow 1949), in integers so that every device picks the same tokens.
//
// Inclusion probabilities are pi_i = sigmoid(logit_i + c), with c such that they sum to the budget k. Walking the
// tokens in order, one is kept each time the running sum of pi passes one of k equally spaced thresholds; no pi
// exceeds the spacing, so exactly k are kept and no prefix strays from its expected count by 1 or more.
//
// Infinite logits are certain, so the tokens fall into three classes: +inf, finite, and -inf with NaN. Classes are
// filled in that order; only the one in which the budget runs out is walked. In an infinite class all tokens are
// equally likely.
#pragma once

#include "score/packed.h"
#include "score/transcendental.h"

namespace score {

enum LogitClass : int32_t { kCertain = 0, kFinite = 1, kNever = 2 };

// Beyond this a logit counts as infinite; it leaves room to add c without overflow.
constexpr float kInfiniteLogit = 1e30f;

SCORE_INLINE int32_t logit_class(float logit) {
  return logit > kInfiniteLogit ? kCertain : (logit >= -kInfiniteLogit ? kFinite : kNever);
}

// What one pass over a video's logits finds out. min and max are of the finite ones (max < min if there are none).
struct LogitSummary {
  int64_t certain;
  int64_t finite;
  float min;
  float max;
};

// Which class the budget runs out in, and how many of it are kept. Classes before it are kept, those after it are not.
struct Marginal {
  int32_t klass;
  int64_t size;
  int64_t keep;
  // False where every token of the class has the same probability, so that no c is needed.
  SCORE_INLINE bool needs_shift() const { return klass == kFinite && keep > 0 && keep < size; }
};

SCORE_INLINE Marginal marginal_class(const LogitSummary& summary, int64_t length, int64_t keep) {
  if (keep <= summary.certain) return {kCertain, summary.certain, keep};
  if (keep <= summary.certain + summary.finite) return {kFinite, summary.finite, keep - summary.certain};
  const int64_t before = summary.certain + summary.finite;
  return {kNever, length - before, keep - before};
}

// Floats in order as integers, so that bisection over them ends after at most 32 steps.
SCORE_INLINE int64_t float_order(float value) {
  const int32_t bits = static_cast<int32_t>(float_bits(value));
  return bits < 0 ? -static_cast<int64_t>(bits & 0x7FFFFFFF) : bits;
}

SCORE_INLINE float order_float(int64_t order) {
  return order < 0 ? bits_float(static_cast<uint32_t>(-order) | 0x80000000u) : bits_float(static_cast<uint32_t>(order));
}

// Finds c by Newton's method kept inside a bracket, bisecting when a step leaves it. The caller sums, over the finite
// tokens, sigmoid_fixed(logit + shift()) and slope_fixed() of it, and calls update() until that returns true; then
// shift() is an upper bound of c: the probabilities sum to the budget or exceed it by less than one part in 2^precision
// (or by what one step of a float makes, for logits so large that floats are coarse).
class ShiftSolver {
 public:
  // target: the budget in fixed point. start: a first guess, used where it lies inside the bracket.
  SCORE_INLINE ShiftSolver(float min, float max, int64_t target, int precision, float start)
      : low_(sub_rn(-max, margin(max))),
        high_(add_rn(-min, margin(min))),
        target_(target),
        tolerance_(target >> precision),
        evaluations_(0) {
    shift_ = start > low_ && start < high_ ? start : middle();
  }

  SCORE_INLINE float shift() const { return shift_; }

  SCORE_INLINE static float middle_start() { return bits_float(0x7FC00000u); }  // NaN lies in no bracket

  SCORE_INLINE bool update(int64_t sum, int64_t slope) {
    if (sum >= target_) {
      high_ = shift_;
      if (sum - target_ <= tolerance_) return true;
    } else {
      low_ = shift_;
    }
    const double excess = static_cast<double>(sum - target_ - tolerance_ / 2);
    const double step = slope > 0 ? div_rn(excess, static_cast<double>(slope)) : 0.0;
    const float next = static_cast<float>(sub_rn(static_cast<double>(shift_), step));
    ++evaluations_;
    const bool newton = slope > 0 && evaluations_ < kNewtonSteps && next > low_ && next < high_;
    shift_ = newton ? next : middle();
    if (shift_ > low_ && shift_ < high_) return false;
    shift_ = high_;  // no float is left between: high_ is the smallest one that reaches the target
    return true;
  }

 private:
  static constexpr int kNewtonSteps = 24;

  // At this distance the sigmoid is 0 or 1 in fixed point, also where a float's steps are wide.
  SCORE_INLINE static float margin(float logit) {
    const float wide = mul_rn(logit < 0.0f ? -logit : logit, 9.5367431640625e-7f);  // 2^-20
    return wide > 32.0f ? wide : 32.0f;
  }

  // Halfway by value where the bracket is short, by bit pattern where it spans many magnitudes.
  SCORE_INLINE float middle() const {
    const float width = sub_rn(high_, low_);
    if (width < 256.0f && evaluations_ < kNewtonSteps) return add_rn(low_, mul_rn(width, 0.5f));
    const int64_t low = float_order(low_), high = float_order(high_);
    return order_float(low + (high - low) / 2);
  }

  float low_, high_, shift_;
  int64_t target_, tolerance_;
  int evaluations_;
};

// Derivative of sigmoid_fixed in fixed point, for ShiftSolver.
SCORE_INLINE int32_t slope_fixed(int32_t probability) {
  const float complement = mul_rn(static_cast<float>(kOne - probability), 1.0f / static_cast<float>(kOne));
  return static_cast<int32_t>(mul_rn(static_cast<float>(probability), complement));
}

// Precision of the shift: the first solve runs over a subsample to find a start for the second, over everything.
constexpr int kStartPrecision = 8;
constexpr int kShiftPrecision = 17;
constexpr int64_t kStartTokens = 4096;

// The k thresholds offset * spacing + j * spacing, j < k, over a running sum that ends at `total`.
class Thresholds {
 public:
  SCORE_INLINE Thresholds(int64_t total, int64_t keep, double offset)
      : keep_(keep), spacing_(keep > 0 && total > keep ? total / keep : 1) {
    first_ = static_cast<int64_t>(mul_rn(offset, static_cast<double>(spacing_)));
    if (first_ >= spacing_) first_ = spacing_ - 1;
  }

  // How many thresholds lie below a running sum: a token is kept where this grows.
  SCORE_INLINE int64_t passed(int64_t sum) const {
    if (keep_ == 0 || sum <= first_) return 0;
    const int64_t count = (sum - first_ - 1) / spacing_ + 1;
    return count < keep_ ? count : keep_;
  }

  SCORE_INLINE int64_t threshold(int64_t j) const { return first_ + j * spacing_; }
  SCORE_INLINE int64_t keep() const { return keep_; }

 private:
  int64_t keep_, spacing_, first_;
};

}  // namespace score
