// Where sums of squares of floats can be trusted.
#pragma once

#include "score/rounding.h"

namespace score {

// Whether a sum of squares in float32 neither overflowed nor owes anything that shows to squares that underflowed: each
// of those is off by 2^-150 at most. Then no sum of products of two such rows, none larger than the mean of their sums
// of squares, did either. False for 0, infinity and NaN: such rows are added up once more, in double.
SCORE_INLINE bool sum_is_exact(float squares) { return squares >= 0x1p-100f && squares <= 0x1p126f; }

}  // namespace score
