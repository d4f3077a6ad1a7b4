// Scores as unsigned integers whose order is the order in which tokens are kept.
#pragma once

#include "score/rounding.h"

namespace score {

// Larger is kept first. NaN is 0, below -inf; -0 equals +0. Ties are broken by the caller: lower index first.
SCORE_INLINE uint32_t rank_bits(float score) {
  // All in integers: an addition would make subnormal scores equal where the caller flushes them to zero.
  const uint32_t given = float_bits(score), bits = given == 0x80000000u ? 0u : given;  // -0 is +0
  const uint32_t flipped = bits ^ ((bits >> 31) ? 0xFFFFFFFFu : 0x80000000u);
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0u : flipped;
}

}  // namespace score
