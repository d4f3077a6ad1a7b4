// A walk through a packed batch in place-major order: all frames of a video's place 0, then of its place 1, and so on.
#pragma once

#include "videos.cuh"

namespace score::cuda {

// Starts at a position of the place-major order, 0 .. num_tokens, in whichever video that is. row() is always a row of
// the video it is in, and previous_row() too unless this is a first frame, whatever the offsets are.
class Walk {
 public:
  __device__ Walk(const PackedBatch& batch, const int32_t* tokens_per_frame, int64_t position)
      : batch_(batch), tokens_per_frame_(tokens_per_frame), video_(find_video(batch, position)) {
    enter_video();
    if (!valid() || position <= begin_) return;
    // The first `ragged` places have one frame more where the length is no multiple of the frame.
    int64_t offset = position - begin_;
    if (offset >= end_ - begin_) offset = end_ - begin_ - 1;
    const int64_t frames = (end_ - begin_) / stride_, ragged = (end_ - begin_) % stride_;
    const int64_t in_ragged = ragged * (frames + 1);
    int64_t frame;
    if (offset < in_ragged) {
      place_ = offset / (frames + 1);
      frame = offset % (frames + 1);
    } else {
      place_ = ragged + (offset - in_ragged) / frames;
      frame = (offset - in_ragged) % frames;
    }
    first_ = frame == 0;
    row_ = begin_ + frame * stride_ + place_;
  }

  __device__ bool valid() const { return video_ < batch_.num_videos; }
  __device__ int64_t row() const { return row_; }
  __device__ int64_t previous_row() const { return row_ - stride_; }
  __device__ bool is_first_frame() const { return first_; }

  __device__ void advance() {
    row_ += stride_;
    first_ = false;
    if (row_ < end_) return;
    row_ = begin_ + ++place_;
    first_ = true;
    if (place_ < stride_ && row_ < end_) return;
    ++video_;
    enter_video();
  }

 private:
  // To the first token of video_, or of the next one that has any.
  __device__ void enter_video() {
    for (; video_ < batch_.num_videos; ++video_) {
      const VideoRange range = video_range(batch_, video_);
      if (range.length() == 0) continue;
      const int64_t in_frame = frame_tokens(tokens_per_frame_, video_);
      begin_ = range.begin;
      end_ = range.end;
      stride_ = in_frame < range.length() ? in_frame : range.length();
      row_ = begin_;
      place_ = 0;
      first_ = true;
      return;
    }
  }

  PackedBatch batch_;
  const int32_t* tokens_per_frame_;
  int64_t video_;
  int64_t begin_ = 0, end_ = 0, stride_ = 1, row_ = 0, place_ = 0;
  bool first_ = true;
};

}  // namespace score::cuda
