// The k largest ranks of one video, shared by select and gumbel_topk.
#pragma once

#include <cstdint>

namespace score::cpu {

// Writes, ascending, base + i for the keep largest of rank [length]; of equal ranks the lower i first.
// 0 <= keep <= length.
void top_rows(const uint32_t* rank, int64_t length, int64_t keep, int64_t base, int64_t* index);

}  // namespace score::cpu
