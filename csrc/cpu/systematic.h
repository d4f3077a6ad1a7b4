// Systematic selection within one video, used by select.
#pragma once

#include <cstdint>

namespace score::cpu {

// Writes, ascending, base + i for the keep tokens of logits [length] that systematic sampling picks
// (score/systematic.h). 0 <= keep <= length; offset in [0, 1).
void systematic_rows(const float* logits, int64_t length, int64_t keep, double offset, int64_t base, int64_t* index);

}  // namespace score::cpu
