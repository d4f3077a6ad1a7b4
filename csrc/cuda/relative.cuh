// What the kernels of relative_measures share: where videos, frames and pieces of work lie, and their scratch memory.
//
// The host knows L, B and the number of frames T, but no video's size: the first kernel numbers frames and pieces of
// work, the others look up what a number means. What lies beyond T frames is cut off, so that wrong sizes lead to no
// memory but the batch's own.
#pragma once

#include "kernels.h"
#include "launch.cuh"
#include "score/relative.h"
#include "videos.cuh"

namespace score::cuda {

// The inner products of a token's centred direction c that its measures are made of, in the order of their sums in
// scratch. kSumAround: nine of them, of two frames t - 1 and t, t even from the video's first frame: what lies in the
// row of (t, p) is <c(t - 1, p), c(t, p + o)>, and in that of (t + 1, p) <c(t + 1, p), c(t, p + o)>, for the offsets o
// row by row. So the places around p are read in every second frame only.
enum Sum : int {
  kSumAround = 0,
  kSumCentre = kSumAround + 4,
  kSumBack2 = kSumAround + 9,  // with the same place 2 frames back
  kSumBack4,
  kSumUp,
  kSumLeft,
  kSumSelf,
  kSumFrame,  // with the frame's mean direction less the video's
  kSumVideo,  // with the video's
  kSums
};

struct RelativeScratch {
  // Numbers of pieces of work, [B + 1] each: those of video b are first[b] .. first[b + 1].
  int64_t* first_frame;
  int64_t* first_run;   // of up to run_rows rows, within a frame
  int64_t* first_tile;  // of places and frames, see relative_products.cu

  float* scale;          // [L], see Direction
  float* directions;     // [max_runs, D]: sums over runs; then a frame's first row is the frame's mean
  float* video_means;    // [B, D]
  float* frame_squares;  // [T, 4]: |f|^2, |f - m|^2, <m, f>, |m|^2 with f the mean of the frame, m of the video
  float* sums;           // [slices, kSums, L]: over slices of columns; then over all of them in the first
  double* spread;        // [T, kMeasures, 2]: number of tokens, sum of squares about their mean
  int64_t num_frames;    // T
  int64_t max_runs;
  int64_t slices;
  int run_rows;  // see directions
};

// The size of a video, whatever the values on the device are: all its rows lie in the batch.
struct VideoShape {
  int64_t begin;  // its first row
  int64_t frames;
  int64_t in_frame;     // tokens
  int64_t columns;      // 1 .. in_frame
  int64_t first_frame;  // in the batch

  __device__ int64_t rows() const { return in_frame / columns; }
  __device__ int64_t runs_per_frame(int run_rows) const { return ceil_div(in_frame, run_rows); }
};

// The batch and its tables, on the device.
struct RelativeLayout {
  PackedBatch batch;
  const int32_t* tokens_per_frame;
  const int32_t* columns;
  RelativeScratch scratch;

  // With all of its frames, whatever T is.
  __device__ VideoShape whole_shape(int64_t video) const {
    const VideoRange range = video_range(batch, video);
    const int64_t length = range.length();
    int64_t in_frame = frame_tokens(tokens_per_frame, video);
    if (in_frame > length) in_frame = length < 1 ? 1 : length;
    int64_t wide = columns[video];
    wide = wide < 1 ? 1 : (wide > in_frame ? in_frame : wide);
    return {range.begin, length / in_frame, in_frame, wide, 0};
  }

  __device__ VideoShape shape(int64_t video) const {
    VideoShape shape = whole_shape(video);
    shape.first_frame = scratch.first_frame[video];
    const int64_t frames = scratch.first_frame[video + 1] - shape.first_frame;
    if (shape.frames > frames) shape.frames = frames;
    return shape;
  }

  // The video that a piece of work belongs to. Some video, whatever the number is.
  __device__ int64_t find(const int64_t* first, int64_t number) const {
    int64_t low = 0, high = batch.num_videos - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (first[middle + 1] > number) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  // The row of `directions` with the sum of a run, and, of the first, with the frame's mean.
  __device__ int64_t run_row(int64_t video, const VideoShape& shape, int64_t frame, int64_t run = 0) const {
    const int64_t row = scratch.first_run[video] + frame * shape.runs_per_frame(scratch.run_rows) + run;
    return row < scratch.max_runs ? row : scratch.max_runs - 1;
  }
};

// How to make x / |x| of x: (x * first) * second. One float says both: `second` where that is a normal float, and
// negated where x must be multiplied by 2^-60 first (|x| is huge, second below 1) or by 2^60 (tiny, above 1).
struct Direction {
  float first = 1.0f;
  float second;

  __device__ explicit Direction(float scale) : second(scale) {
    if (scale < 0.0f) {
      first = scale > -1.0f ? 0x1p-60f : 0x1p60f;
      second = -scale;
    }
  }
};

// The steps, in their order.
cudaError_t number_work(const RelativeLayout& layout, int tile_frames, cudaStream_t stream);
// Rows of a frame whose directions one block adds up. Shows in how sums are rounded, so that it depends on the width
// alone, as does the number of slices below.
constexpr int run_rows(int64_t width) { return width <= 1024 ? 16 : 40; }
cudaError_t directions(const TokenBatch& tokens, const RelativeLayout& layout, float* measures, cudaStream_t stream);
cudaError_t products(const TokenBatch& tokens, const RelativeLayout& layout, int tile_frames, cudaStream_t stream);
cudaError_t finish_measures(
    const TokenBatch& tokens, const RelativeLayout& layout, float* measures, double* moments, cudaStream_t stream);

// How products divides its work. The number of slices depends on the width alone: it shows in how sums are rounded, and
// a video's must not depend on what lies in the batch beside it. The number of a tile's frames, 2 or 4, does not show.
int64_t num_slices(int64_t width);
cudaError_t choose_tile_frames(const TokenBatch& tokens, int* tile_frames);

// A tile of products is up to tile_places(shape) places of one frame, in tile_frames consecutive frames.
constexpr int kTilePlaces = 128;
constexpr int kMaxReach = 40;                     // see relative_products.cu
constexpr int kWideTilePlaces = kTilePlaces / 2;  // of frames with longer rows

// How many tokens away the next row of the frame is; 0 where there is none.
__device__ inline int64_t tile_reach(const VideoShape& shape) { return shape.rows() > 1 ? shape.columns : 0; }

__device__ inline int64_t tiles_per_frame(const VideoShape& shape) {
  return ceil_div(shape.in_frame, tile_reach(shape) <= kMaxReach ? kTilePlaces : kWideTilePlaces);
}

}  // namespace score::cuda
