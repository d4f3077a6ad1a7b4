// The signs of a count sketch, the same on every device.
#pragma once

#include <cstdint>

#include "score/rounding.h"

namespace score {

// 1 or -1, drawn by the column's number: a bit of splitmix64's hash of it.
SCORE_INLINE float column_sign(int64_t column) {
  uint64_t bits = static_cast<uint64_t>(column) * 0x9E3779B97F4A7C15u;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
  return (bits >> 40) & 1u ? -1.0f : 1.0f;
}

}  // namespace score
