// The packed batch: B videos of cu_seqlens[b + 1] - cu_seqlens[b] tokens each, frame-major, one after the other.
#pragma once

#include "score/rounding.h"

namespace score {

struct PackedBatch {
  const int32_t* cu_seqlens;  // [num_videos + 1]
  int64_t num_videos;         // B
  int64_t num_tokens;         // L
};

struct VideoRange {
  int64_t begin;
  int64_t end;
  SCORE_INLINE int64_t length() const { return end - begin; }
};

// Offsets on a GPU are not looked at before the launch; clamped here, wrong ones cannot lead outside of a tensor.
SCORE_INLINE VideoRange video_range(const PackedBatch& batch, int64_t video) {
  int64_t begin = batch.cu_seqlens[video];
  int64_t end = batch.cu_seqlens[video + 1];
  begin = begin < 0 ? 0 : (begin > batch.num_tokens ? batch.num_tokens : begin);
  end = end < begin ? begin : (end > batch.num_tokens ? batch.num_tokens : end);
  return {begin, end};
}

// A budget clamped to what the video has, for the same reason.
SCORE_INLINE int64_t video_keep(const int32_t* keep, int64_t video, const VideoRange& range) {
  const int64_t k = keep[video];
  return k < 0 ? 0 : (k > range.length() ? range.length() : k);
}

}  // namespace score
