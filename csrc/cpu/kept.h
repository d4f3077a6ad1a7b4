// Where the kept rows of each video lie.
#pragma once

#include <cstdint>
#include <vector>

namespace score::cpu {

// [num_videos + 1]: running sums of keep [num_videos] from 0; video b's rows are those from [b] up to [b + 1].
inline std::vector<int64_t> kept_begins(const int32_t* keep, int64_t num_videos) {
  std::vector<int64_t> begins(num_videos + 1, 0);
  for (int64_t video = 0; video < num_videos; ++video) begins[video + 1] = begins[video] + keep[video];
  return begins;
}

}  // namespace score::cpu
