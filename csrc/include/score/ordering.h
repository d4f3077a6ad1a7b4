// Scores as unsigned integers whose order is the order in which tokens are kept.
#pragma once

#include "score/rounding.h"

namespace score {

// Larger is kept first. NaN is 0, below -inf; -0 equals +0. Ties are broken by the caller: lower index first.
SCORE_INLINE uint32_t rank_bits(float score) {
  const uint32_t bits = float_bits(add_rn(score, 0.0f));  // -0 + 0 = +0
  const uint32_t flipped = bits ^ ((bits >> 31) ? 0xFFFFFFFFu : 0x80000000u);
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0u : flipped;
}

}  // namespace score
