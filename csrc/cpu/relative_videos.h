// The videos of a batch as the kernels of the relative state walk them.
#pragma once

#include <algorithm>
#include <vector>

#include "score/packed.h"
#include "score/relative.h"

namespace score::cpu {

struct RelativeVideo {
  int64_t begin;      // its first row in the batch
  int64_t frames;     // T
  int64_t per_frame;  // N = rows * columns
  int64_t rows, columns;
  int64_t first_frame;  // frames of the videos before it
};

// One for each video; an empty one has no frames.
inline std::vector<RelativeVideo> relative_videos(const RelativeBatch& batch) {
  const TokenBatch& tokens = batch.tokens;
  const PackedBatch packed{tokens.cu_seqlens, tokens.num_videos, tokens.num_tokens};
  std::vector<RelativeVideo> videos(tokens.num_videos);
  int64_t first_frame = 0;
  for (int64_t number = 0; number < tokens.num_videos; ++number) {
    const VideoRange range = video_range(packed, number);
    RelativeVideo& video = videos[number];
    video = {range.begin, 0, 1, 1, 1, first_frame};
    if (range.length() == 0) continue;
    video.per_frame = tokens.tokens_per_frame[number];
    video.columns = batch.columns[number];
    video.rows = video.per_frame / video.columns;
    video.frames = range.length() / video.per_frame;
    first_frame += video.frames;
  }
  return videos;
}

// Numbers 0 .. end of work items that fall to videos in order: items of video b are first[b] .. first[b + 1].
class ItemsOfVideos {
 public:
  template <typename Count>
  ItemsOfVideos(const std::vector<RelativeVideo>& videos, const Count& count) : first_(videos.size() + 1, 0) {
    for (size_t video = 0; video < videos.size(); ++video) first_[video + 1] = first_[video] + count(videos[video]);
  }
  int64_t count() const { return first_.back(); }
  int64_t first(int64_t video) const { return first_[video]; }
  // Calls body(video, number within it) for items begin .. end.
  template <typename Body>
  void each(int64_t begin, int64_t end, const Body& body) const {
    int64_t video = std::upper_bound(first_.begin(), first_.end(), begin) - first_.begin() - 1;
    for (int64_t item = begin; item < end; ++item) {
      while (item >= first_[video + 1]) ++video;
      body(video, item - first_[video]);
    }
  }

 private:
  std::vector<int64_t> first_;
};

}  // namespace score::cpu
