// exp, log and what is built on them, bit for bit the same on CPU and GPU (see rounding.h). Both arms of a choice are
// computed before it is made: without branches, compilers vectorise the loops around these. Accurate to a few units in
// the last place of a float.
#pragma once

#include "score/rounding.h"

namespace score {

// Fixed point of probabilities: 1.0 is kOne. Sums of it in int64 are exact, so they do not depend on their order.
constexpr int kProbabilityBits = 30;
constexpr int32_t kOne = int32_t{1} << kProbabilityBits;

// exp(-a) for a >= 0; 0 for NaN and where the result would be below the normal floats.
SCORE_INLINE float exp_negative(float a) {
  const float clamped = a < 88.0f ? a : 88.0f;
  // a = n ln2 + r with |r| <= ln2 / 2; ln2 is split so that n * ln2_high is exact for n < 2^9. n ends at 127, whose
  // power of two below has an exponent field of 0: that is 0, without a branch.
  const int32_t n = static_cast<int32_t>(add_rn(mul_rn(clamped, 1.44269504f), 0.5f));
  const float nf = static_cast<float>(n);
  const float r = sub_rn(sub_rn(clamped, mul_rn(nf, 0.693359375f)), mul_rn(nf, -2.12194440e-4f));
  // Taylor series of exp(-r) to the seventh power, by Horner; the rest is below 6e-9.
  float p = -1.98412698e-4f;
  p = add_rn(mul_rn(p, r), 1.38888889e-3f);
  p = add_rn(mul_rn(p, r), -8.33333333e-3f);
  p = add_rn(mul_rn(p, r), 4.16666667e-2f);
  p = add_rn(mul_rn(p, r), -1.66666667e-1f);
  p = add_rn(mul_rn(p, r), 0.5f);
  p = add_rn(mul_rn(p, r), -1.0f);
  p = add_rn(mul_rn(p, r), 1.0f);
  return mul_rn(p, bits_float(static_cast<uint32_t>(127 - n) << 23));
}

// sigmoid(x) in fixed point, 0 .. kOne; 0 for NaN.
SCORE_INLINE int32_t sigmoid_fixed(float x) {
  const float magnitude = x < 0.0f ? -x : x;
  const float e = exp_negative(magnitude);
  const float numerator = x < 0.0f ? e : 1.0f;
  const float p = div_rn(numerator, add_rn(1.0f, e));
  const int32_t fixed = static_cast<int32_t>(add_rn(mul_rn(p, static_cast<float>(kOne)), 0.5f));
  return x == x ? fixed : 0;
}

// log(1 + f) for f in [-0.3, 0.42], as 2 atanh(f / (2 + f)); the terms left out are below 3e-9 of the result.
SCORE_INLINE float log1p_small(float f) {
  const float s = div_rn(f, add_rn(2.0f, f));
  const float s2 = mul_rn(s, s);
  float p = 2.0f / 9.0f;
  p = add_rn(mul_rn(p, s2), 2.0f / 7.0f);
  p = add_rn(mul_rn(p, s2), 2.0f / 5.0f);
  p = add_rn(mul_rn(p, s2), 2.0f / 3.0f);
  p = add_rn(mul_rn(p, s2), 2.0f);
  return mul_rn(p, s);
}

// log(x) of a positive normal float.
SCORE_INLINE float log_positive(float x) {
  // x = 2^n m with m in [sqrt(1/2), sqrt(2)): 0x3F3504F3 is the bit pattern of sqrt(1/2).
  const uint32_t bits = float_bits(x);
  const int32_t n = static_cast<int32_t>(bits - 0x3F3504F3u) >> 23;
  const float m = bits_float(bits - (static_cast<uint32_t>(n) << 23));
  const float nf = static_cast<float>(n);
  const float low = add_rn(mul_rn(nf, -2.12194440e-4f), log1p_small(sub_rn(m, 1.0f)));
  return add_rn(mul_rn(nf, 0.693359375f), low);
}

// A standard Gumbel number, -log(-log(u)), from a random word. u = 1 - (word + 1/2) / 2^32, so that the upper tail,
// which decides who wins among many tokens, comes from small words and keeps a float's full relative resolution.
SCORE_INLINE float gumbel(uint32_t word) {
  constexpr float kUnit = 2.3283064365386963e-10f;                                          // 2^-32
  const float below = mul_rn(add_rn(static_cast<float>(word), 0.5f), kUnit);                // 1 - u
  const float above = mul_rn(add_rn(static_cast<float>(0xFFFFFFFFu - word), 0.5f), kUnit);  // u
  const float log_near_one = log1p_small(-below);
  const float log_elsewhere = log_positive(above);
  return -log_positive(-(word < 0x40000000u ? log_near_one : log_elsewhere));  // near one: u > 3/4
}

// Kept with probability sigmoid(logit), given a random word; never for NaN.
SCORE_INLINE bool bernoulli(uint32_t word, float logit) {
  // word < 2^32 p, with p = fixed / 2^30, and fixed = kOne certain: compared without the two lowest bits of word.
  return static_cast<int32_t>(word >> (32 - kProbabilityBits)) < sigmoid_fixed(logit);
}

// log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|)); NaN for NaN.
SCORE_INLINE float log_sigmoid(float x) {
  const float e = exp_negative(x < 0.0f ? -x : x);
  const float log_small = log1p_small(e);
  const float log_large = log_positive(add_rn(1.0f, e));
  return sub_rn(x > 0.0f ? 0.0f : x, e < 0.4f ? log_small : log_large);
}

}  // namespace score
