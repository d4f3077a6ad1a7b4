// relative_rows: the policy's state from measures and moments.
//
// A block takes 64 rows and looks up where each of them is in its video. Then each warp has 32 of the rows and every
// fourth column, a thread a row: columns differ in what is to be done for them, so that a warp does one thing at a
// time. Up to 64 columns are put into shared memory first, and written row by row from there.
//
// 40,000 rows of 43 columns in float32: reads 2 MB, writes 7 MB; on an H200 17 us of a relative_state in a CUDA graph,
// where a thread for each column of a row took 45.
#include <cub/block/block_reduce.cuh>

#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "score/relative.h"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 64;         // of a block
constexpr int kTileColumns = 64;  // of a row at a time

// Where a token is in its video, and the groups that its measures are compared with.
struct TokenPlace {
  int64_t video_group, frame_group;  // rows of the moments
  int64_t frames, frame;
  int64_t in_frame;  // tokens
  int64_t rows, row;
  int64_t columns, column;
};

__device__ inline int64_t frames_of(const PackedBatch& batch, const int32_t* tokens_per_frame, int64_t video) {
  const int32_t length = static_cast<int32_t>(video_range(batch, video).length());
  return length / static_cast<int32_t>(frame_tokens(tokens_per_frame, video));
}

// first_frame: of the batch, the first one of first_video, which is this token's or comes before it.
__device__ inline TokenPlace find_place(
    const PackedBatch& batch, const int32_t* tokens_per_frame, const int32_t* columns, int64_t num_frames,
    int64_t token, int64_t first_video, int64_t first_frame) {
  const int64_t video = find_video(batch, token);
  for (int64_t v = first_video; v < video; ++v) first_frame += frames_of(batch, tokens_per_frame, v);
  const VideoRange range = video_range(batch, video);
  TokenPlace place;
  place.in_frame = frame_tokens(tokens_per_frame, video);
  place.columns = columns[video] < 1 ? 1 : columns[video];
  place.rows = place.in_frame / place.columns;
  place.frames = range.length() / place.in_frame;
  const int64_t offset = token - range.begin;
  place.frame = offset / place.in_frame;
  place.row = offset % place.in_frame / place.columns;
  place.column = offset % place.in_frame % place.columns;
  place.video_group = num_frames + video;
  const int64_t group = first_frame + place.frame;
  place.frame_group = group >= 0 && group < num_frames ? group : place.video_group;  // always a group
  return place;
}

// The standard score of a measure, asinh of it; 0 of -inf, which is the log-norm of a zero token.
__device__ inline float score_in(const double* moments, int64_t group, int measure, float value) {
  if (value == -INFINITY) return 0.0f;
  const double* moment = moments + (group * kMeasures + measure) * 2;
  return asinh_float(static_cast<float>((value - moment[0]) * moment[1]));
}

// One of `count` cosines from `first` on, three times over: as it is, as a score in the video, in the frame.
__device__ inline float cosine_column(
    int column, int first, int count, const TokenPlace& place, const float* measures, const double* moments) {
  const int measure = first + column % count, kind = column / count;
  const float value = measures[measure];
  if (kind == 0) return value;
  if (!cosine_exists(measure, place.frame, place.frames, place.in_frame)) return 0.0f;
  return score_in(moments, kind == 1 ? place.video_group : place.frame_group, measure, value);
}

__device__ inline float temporal_column(
    int column, const TokenPlace& place, const float* measures, const double* moments) {
  constexpr int kScores = 3 * kTemporalCosines;
  if (column < kScores) return cosine_column(column, 0, kTemporalCosines, place, measures, moments);
  const int frames_back = column == kScores ? 1 : (column == kScores + 1 ? 2 : 4);
  const bool exists = column == kScores + 3 ? place.frame + 1 < place.frames : place.frame >= frames_back;
  return exists ? 1.0f : 0.0f;
}

__device__ inline float appearance_column(
    int column, const TokenPlace& place, const float* measures, const double* moments) {
  constexpr int kScores = 3 * kAppearanceCosines;
  if (column < kScores) return cosine_column(column, kTemporalCosines, kAppearanceCosines, place, measures, moments);
  if (column == kScores) return place.in_frame > 1 ? 1.0f : 0.0f;
  const int64_t group = column == kScores + 1 ? place.video_group : place.frame_group;
  return score_in(moments, group, kLogNorm, measures[kLogNorm]);
}

__device__ inline float position_column(int column, const TokenPlace& place) {
  const int wave = column - 3, axis = wave < 0 ? column : wave % (3 * kFrequencies) / kFrequencies;
  const int64_t at = axis == 0 ? place.frame : (axis == 1 ? place.row : place.column);
  const int64_t size = axis == 0 ? place.frames : (axis == 1 ? place.rows : place.columns);
  const float unit = static_cast<float>(at) / static_cast<float>(size > 1 ? size - 1 : 1);
  if (wave < 0) return unit;
  const float half_turns = unit * static_cast<float>(1 << wave % kFrequencies);
  return wave < 3 * kFrequencies ? sinpif(half_turns) : cospif(half_turns);
}

// Column `column` of a row, all parts side by side.
__device__ inline float state_column(
    int64_t column, const TokenPlace& place, const float* measures, const double* moments, const RelativeParts& parts,
    int64_t row) {
  if (parts.temporal) {
    if (column < kTemporalColumns) return temporal_column(static_cast<int>(column), place, measures, moments);
    column -= kTemporalColumns;
  }
  if (parts.appearance) {
    if (column < kAppearanceColumns) return appearance_column(static_cast<int>(column), place, measures, moments);
    column -= kAppearanceColumns;
  }
  if (parts.position) {
    if (column < kPositionColumns) return position_column(static_cast<int>(column), place);
    column -= kPositionColumns;
  }
  return parts.features[row * parts.num_features + column];
}

// out [end - begin, columns]
template <typename Out>
__global__ void __launch_bounds__(kThreads) state_rows(
    PackedBatch batch, const int32_t* tokens_per_frame, const int32_t* frame_columns, int64_t num_frames,
    const float* measures, const double* moments, RelativeParts parts, int64_t columns, int64_t begin, int64_t end,
    Out* out) {
  using BlockSum = cub::BlockReduce<int64_t, kThreads>;
  __shared__ typename BlockSum::TempStorage storage;
  __shared__ int64_t first_frame;
  __shared__ TokenPlace places[kRows];
  __shared__ float of_tokens[kRows * kMeasures];
  __shared__ float tile[kRows][kTileColumns + 1];  // one more, so that rows lie in different banks
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  for (int64_t first = begin + static_cast<int64_t>(blockIdx.x) * kRows; first < end;
       first += static_cast<int64_t>(gridDim.x) * kRows) {
    const int rows = static_cast<int>(end - first < kRows ? end - first : kRows);
    const int64_t first_video = find_video(batch, first);
    int64_t frames = 0;
    for (int64_t v = thread; v < first_video; v += kThreads) frames += frames_of(batch, tokens_per_frame, v);
    frames = BlockSum(storage).Sum(frames);
    if (thread == 0) first_frame = frames;
    for (int i = thread; i < rows * kMeasures; i += kThreads) of_tokens[i] = measures[first * kMeasures + i];
    __syncthreads();
    if (thread < rows) {
      places[thread] =
          find_place(batch, tokens_per_frame, frame_columns, num_frames, first + thread, first_video, first_frame);
    }
    __syncthreads();
    const int row = thread % kRows;
    const TokenPlace place = places[row < rows ? row : 0];
    for (int64_t left = 0; left < columns; left += kTileColumns) {
      const int wide = static_cast<int>(columns - left < kTileColumns ? columns - left : kTileColumns);
      if (row < rows) {
        for (int c = thread / kRows; c < wide; c += kThreads / kRows) {
          tile[row][c] = state_column(left + c, place, of_tokens + row * kMeasures, moments, parts, first + row);
        }
      }
      __syncthreads();
      for (int r = warp; r < rows; r += kThreads / 32) {
        Out* to = out + (first - begin + r) * columns + left;
        for (int c = lane; c < wide; c += 32) to[c] = from_float<Out>(tile[r][c]);
      }
      __syncthreads();
    }
  }
}

}  // namespace

cudaError_t relative_rows(
    const RelativeBatch& batch, const float* measures, const double* moments, const RelativeParts& parts, int64_t begin,
    int64_t end, DType out_dtype, void* out, cudaStream_t stream) {
  const int64_t columns = parts.columns();
  if (begin >= end || columns == 0) return cudaSuccess;
  const PackedBatch packed{batch.tokens.cu_seqlens, batch.tokens.num_videos, batch.tokens.num_tokens};
  return dispatch_dtype(out_dtype, [&](auto element) {
    using Out = decltype(element);
    SCORE_LAUNCH(
        state_rows<Out>, grid_size(ceil_div(end - begin, kRows)), kThreads, 0, stream, packed,
        batch.tokens.tokens_per_frame, batch.columns, batch.num_frames, measures, moments, parts, columns, begin, end,
        static_cast<Out*>(out));
    return cudaGetLastError();
  });
}

}  // namespace score::cuda
