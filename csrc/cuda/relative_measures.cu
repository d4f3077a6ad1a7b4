// relative_measures: cosines and log-norms of tokens, and their moments in each frame and each video.
//
// Two passes over the tokens, relative_directions.cu and relative_products.cu; here what follows from their sums, some
// 16 numbers a token, and the launcher of all steps. Eight launches, nothing waits for the device.
//
// 40,000 x 3,584 bfloat16, measured on an H200: all of it 523 us in a CUDA graph, of which by Nsight Compute sum_slices
// takes 15 (it reads 41 MB), frame_measures 19, video_moments 5; number_work before them 4.
#include <cub/block/block_reduce.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "relative.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kFrameThreads = 640;              // a token each
constexpr int kMomentThreads = 32 * kMeasures;  // a warp for each measure

// Sums over slices in the first one's place, a thread for four of kSums * L sums; what |c|^2 is wanted for takes its
// place, 1 / sqrt(|c|^2 + e). The first T blocks do the other thing that the means must be complete for, the products
// of a frame's mean and the video's.
__global__ void __launch_bounds__(kThreads) sum_slices(RelativeLayout layout, int64_t width) {
  using BlockSum = cub::BlockReduce<float, kThreads>;
  __shared__ typename BlockSum::TempStorage storage;
  const RelativeScratch& scratch = layout.scratch;
  int64_t block = blockIdx.x;
  for (; block < scratch.num_frames; block += gridDim.x) {
    if (block >= scratch.first_frame[layout.batch.num_videos]) continue;
    const int64_t video = layout.find(scratch.first_frame, block);
    const VideoShape shape = layout.shape(video);
    const float* frame_mean = scratch.directions + layout.run_row(video, shape, block - shape.first_frame) * width;
    const float* video_mean = scratch.video_means + video * width;
    float sums[4] = {};
    for (int64_t d = threadIdx.x; d < width; d += kThreads) {
      const float f = frame_mean[d], m = video_mean[d];
      sums[0] = fmaf(f, f, sums[0]);
      sums[1] = fmaf(f - m, f - m, sums[1]);
      sums[2] = fmaf(m, f, sums[2]);
      sums[3] = fmaf(m, m, sums[3]);
    }
    for (int s = 0; s < 4; ++s) {
      __syncthreads();
      const float sum = BlockSum(storage).Sum(sums[s]);
      if (threadIdx.x == 0) scratch.frame_squares[block * 4 + s] = sum;
    }
  }
  const int64_t fours = kSums * layout.batch.num_tokens / 4;
  float4* sums = reinterpret_cast<float4*>(scratch.sums);
  const int64_t first_self = kSumSelf * layout.batch.num_tokens, last_self = first_self + layout.batch.num_tokens - 1;
  const bool all = scratch.slices > 1;  // else those of kSumSelf
  for (int64_t at = (all ? 0 : first_self / 4) + (block - scratch.num_frames) * kThreads + threadIdx.x;
       at < fours && (all || at <= last_self / 4); at += static_cast<int64_t>(gridDim.x) * kThreads) {
    float4 sum = sums[at];
#pragma unroll 4
    for (int64_t slice = 1; slice < scratch.slices; ++slice) {
      const float4 more = sums[slice * fours + at];
      sum = float4{sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
    }
    const auto finished = [&](float value, int64_t number) {
      return number >= first_self && number <= last_self ? 1.0f / sqrtf(value + kTiny) : value;
    };
    sums[at] = {
        finished(sum.x, 4 * at), finished(sum.y, 4 * at + 1), finished(sum.z, 4 * at + 2), finished(sum.w, 4 * at + 3)};
  }
}

// The cosines of one frame's tokens, from their sums.
class FrameCosines {
 public:
  __device__ FrameCosines(const RelativeLayout& layout, const VideoShape& shape, int64_t frame)
      : sums_(layout.scratch.sums),
        stride_(layout.batch.num_tokens),
        squares_(layout.scratch.frame_squares + (shape.first_frame + frame) * 4),
        shape_(shape),
        frame_(frame),
        first_row_(shape.begin + frame * shape.in_frame),
        rows_(static_cast<int>(shape.rows())),
        columns_(static_cast<int>(shape.columns)) {}

  __device__ void measure(int place, float* out) const {
    const bool back_1 = frame_ >= 1, ahead_1 = frame_ + 1 < shape_.frames;
    const int64_t row = first_row_ + place, n = shape_.in_frame;
    const float size = this->inverse_size(row), along = sum(kSumVideo, row) + squares_[3];
    for (int k = 0; k < kCosines; ++k) out[k] = 0.0f;
    if (back_1) {
      const float product = same_place(frame_, place);
      out[kBack1] = product * size * inverse_size(row - n);
      out[kBackBest] = best_around(place, size, false);
      // <u, v> = <c, d> + <u, m> + <v, m> - |m|^2, v the token one frame back and d its centred direction
      out[kBack1Plain] = product + along + sum(kSumVideo, row - n);
    }
    if (frame_ >= 2) out[kBack2] = sum(kSumBack2, row) * size * inverse_size(row - 2 * n);
    if (frame_ >= 4) out[kBack4] = sum(kSumBack4, row) * size * inverse_size(row - 4 * n);
    if (ahead_1) {
      out[kAhead1] = same_place(frame_ + 1, place) * size * inverse_size(row + n);
      out[kAheadBest] = best_around(place, size, true);
    }
    if (n > 1) near(place, size, out);
    // <u, f> = <c, f - m> + <c, m> + <m, f>
    const float to_frame = sum(kSumFrame, row);
    out[kToFrame] = to_frame * size / sqrtf(squares_[1] + kTiny);
    out[kFramePlain] = (to_frame + sum(kSumVideo, row) + squares_[2]) / sqrtf(squares_[0] + kTiny);
    out[kVideoPlain] = along / sqrtf(squares_[3] + kTiny);
  }

 private:
  __device__ float sum(int which, int64_t row) const { return sums_[which * stride_ + row]; }
  // 1 / sqrt(|c|^2 + e), see sum_slices
  __device__ float inverse_size(int64_t row) const { return sum(kSumSelf, row); }

  __device__ bool inside(int row, int column) const {
    return row >= 0 && row < rows_ && column >= 0 && column < columns_;
  }

  // <c(t, p), c(t - 1, p)>
  __device__ float same_place(int64_t frame, int place) const {
    return sum(kSumCentre, shape_.begin + frame * shape_.in_frame + place);
  }

  // The largest cosine to a place around in the frame before, or in the one after. Without branches, so that all that
  // is read is on its way at once.
  __device__ float best_around(int place, float size, bool ahead) const {
    const int row = place / columns_, column = place % columns_;
    const int64_t other_frame = first_row_ + (ahead ? shape_.in_frame : -shape_.in_frame);
    // The sums lie in rows of the later frame. In an odd one the row of (t, p) has those with the earlier frame's
    // places around p, in an even one those with c(t - 1, p) of the places around p in the later frame: see Sum.
    const bool later_is_odd = (frame_ + (ahead ? 1 : 0)) % 2 == 1;
    const int sign = later_is_odd == ahead ? -1 : 1;
    float best = kNone;
#pragma unroll
    for (int down = -1; down <= 1; ++down) {
#pragma unroll
      for (int right = -1; right <= 1; ++right) {
        const bool exists = inside(row + down, column + right);
        const int there = exists ? place + down * columns_ + right : place;
        const int64_t later = ahead ? other_frame : first_row_;
        const int64_t of = later + (later_is_odd == ahead ? there : place);
        const float product = sum(kSumCentre + sign * (3 * down + right), of);
        const float cosine = product * size * inverse_size(other_frame + there);
        if (exists && !(cosine <= best)) best = cosine;  // NaN too
      }
    }
    return best;
  }

  // Mean and largest of the cosines to the 4 neighbours.
  __device__ void near(int place, float size, float* out) const {
    const int row = place / columns_, column = place % columns_;
    const int64_t self = first_row_ + place;
    float total = 0.0f, best = kNone, count = 0.0f;
    const auto add = [&](bool is_inside, int which, int64_t of, int64_t other) {
      const float cosine = sum(which, is_inside ? of : self) * size * inverse_size(is_inside ? other : self);
      total += is_inside ? cosine : 0.0f;
      count += is_inside ? 1.0f : 0.0f;
      if (is_inside && !(cosine <= best)) best = cosine;
    };
    add(inside(row - 1, column), kSumUp, self, self - columns_);
    add(inside(row, column - 1), kSumLeft, self, self - 1);
    add(inside(row + 1, column), kSumUp, self + columns_, self + columns_);
    add(inside(row, column + 1), kSumLeft, self + 1, self + 1);
    out[kNearMean] = count > 0.0f ? total / count : 0.0f;
    out[kNearBest] = count > 0.0f ? best : 0.0f;
  }

  const float* sums_;
  int64_t stride_;
  const float* squares_;
  VideoShape shape_;
  int64_t frame_;
  int64_t first_row_;
  int rows_, columns_;
};

struct WarpStorage {
  cub::WarpReduce<double>::TempStorage reduce[kMeasures];
  double sum[kMeasures];
};

// The sum over a warp, known to all its lanes.
__device__ double warp_sum(double value, WarpStorage& storage) {
  const unsigned warp = threadIdx.x / 32;
  __syncwarp();
  const double sum = cub::WarpReduce<double>(storage.reduce[warp]).Sum(value);
  if (threadIdx.x % 32 == 0) storage.sum[warp] = sum;
  __syncwarp();
  return storage.sum[warp];
}

__device__ inline void write_moments(double count, double mean, double squares, double* out) {
  out[0] = mean;
  out[1] = 1.0 / sqrt(squares / (count < 1.0 ? 1.0 : count) + kLeastVariance);
}

// Called by all lanes of a warp: the moments of a frame's measure k, whose values lie kMeasures apart. In double, sums
// of squares of numbers below 100 are exact enough for a variance that kLeastVariance is added to.
__device__ void moments_of_frame(
    const RelativeLayout& layout, int64_t number, const float* values, int64_t in_frame, bool exists, int k,
    WarpStorage& storage, double* moments) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  double count = 0.0, total = 0.0, squares = 0.0;
#pragma unroll 10
  for (int64_t place = lane; place < in_frame; place += 32) {
    const float value = values[place * kMeasures];
    const bool counts = exists && value != -INFINITY;
    const double counted = counts ? value : 0.0;
    count += counts ? 1.0 : 0.0;
    total += counted;
    squares = fma(counted, counted, squares);
  }
  count = warp_sum(count, storage);
  total = warp_sum(total, storage);
  squares = warp_sum(squares, storage);
  const double mean = total / (count < 1.0 ? 1.0 : count);
  squares -= total * mean;
  squares = squares < 0.0 ? 0.0 : squares;
  if (lane == 0) {
    write_moments(count, mean, squares, moments + (number * kMeasures + k) * 2);
    layout.scratch.spread[(number * kMeasures + k) * 2] = count;
    layout.scratch.spread[(number * kMeasures + k) * 2 + 1] = squares;
  }
}

// A block per frame: the measures of its tokens, a thread each, then their moments, a warp for each measure.
__global__ void __launch_bounds__(kFrameThreads)
    frame_measures(RelativeLayout layout, float* measures, double* moments) {
  __shared__ WarpStorage storage;
  for (int64_t number = blockIdx.x; number < layout.scratch.num_frames; number += gridDim.x) {
    if (number >= layout.scratch.first_frame[layout.batch.num_videos]) continue;
    const int64_t video = layout.find(layout.scratch.first_frame, number);
    const VideoShape shape = layout.shape(video);
    const int64_t frame = number - shape.first_frame;
    const FrameCosines cosines(layout, shape, frame);
    float* first = measures + (shape.begin + frame * shape.in_frame) * kMeasures;
    for (int place = static_cast<int>(threadIdx.x); place < shape.in_frame; place += kFrameThreads) {
      float out[kCosines];
      cosines.measure(place, out);
#pragma unroll
      for (int k = 0; k < kCosines; ++k) first[place * kMeasures + k] = out[k];
    }
    __syncthreads();
    const int k = static_cast<int>(threadIdx.x) / 32;
    if (k < kMeasures) {
      const bool exists = cosine_exists(k, frame, shape.frames, shape.in_frame);
      moments_of_frame(layout, number, first + k, shape.in_frame, exists, k, storage, moments);
    }
    __syncthreads();
  }
}

// A block per video, a warp for each measure: the moments of its frames make the video's.
__global__ void __launch_bounds__(kMomentThreads) video_moments(RelativeLayout layout, double* moments) {
  __shared__ WarpStorage storage;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t num_frames = layout.scratch.num_frames;
  for (int64_t video = blockIdx.x; video < layout.batch.num_videos; video += gridDim.x) {
    const VideoShape shape = layout.shape(video);
    const int k = static_cast<int>(threadIdx.x) / 32;
    const auto at = [&](int64_t frame) { return ((shape.first_frame + frame) * kMeasures + k) * 2; };
    double count = 0.0, total = 0.0, squares = 0.0;
    for (int64_t frame = lane; frame < shape.frames; frame += 32) {
      const double tokens = layout.scratch.spread[at(frame)];
      count += tokens;
      total += tokens * moments[at(frame)];
    }
    count = warp_sum(count, storage);
    const double mean = warp_sum(total, storage) / (count < 1.0 ? 1.0 : count);
    for (int64_t frame = lane; frame < shape.frames; frame += 32) {
      const double deviation = moments[at(frame)] - mean;
      squares += layout.scratch.spread[at(frame) + 1] + layout.scratch.spread[at(frame)] * deviation * deviation;
    }
    squares = warp_sum(squares, storage);
    if (lane == 0) write_moments(count, mean, squares, moments + ((num_frames + video) * kMeasures + k) * 2);
  }
}

// Divides the workspace among the parts of scratch, in multiples of 256 bytes.
class Partition {
 public:
  explicit Partition(void* workspace) : next_(static_cast<char*>(workspace)) {}

  template <typename T>
  void take(int64_t count, T** part) {
    *part = next_ ? reinterpret_cast<T*>(next_ + bytes_) : nullptr;
    bytes_ += static_cast<size_t>(ceil_div(count * static_cast<int64_t>(sizeof(T)), 256) * 256);
  }
  size_t bytes() const { return bytes_; }

 private:
  char* next_;
  size_t bytes_ = 0;
};

RelativeScratch divide(const RelativeBatch& batch, void* workspace, size_t* bytes) {
  const TokenBatch& tokens = batch.tokens;
  RelativeScratch scratch{};
  scratch.num_frames = batch.num_frames;
  scratch.run_rows = run_rows(tokens.width);
  scratch.max_runs = tokens.num_tokens / scratch.run_rows + batch.num_frames + 1;
  scratch.slices = num_slices(tokens.width);
  Partition partition(workspace);
  for (int64_t** table : {&scratch.first_frame, &scratch.first_run, &scratch.first_tile}) {
    partition.take(tokens.num_videos + 1, table);
  }
  partition.take(tokens.num_tokens, &scratch.scale);
  partition.take(scratch.max_runs * tokens.width, &scratch.directions);
  partition.take(tokens.num_videos * tokens.width, &scratch.video_means);
  partition.take(batch.num_frames * 4, &scratch.frame_squares);
  partition.take(scratch.slices * kSums * tokens.num_tokens, &scratch.sums);
  partition.take(batch.num_frames * kMeasures * 2, &scratch.spread);
  *bytes = partition.bytes();
  return scratch;
}

}  // namespace

cudaError_t finish_measures(
    const TokenBatch& tokens, const RelativeLayout& layout, float* measures, double* moments, cudaStream_t stream) {
  const int64_t frames = layout.scratch.num_frames;
  const int64_t sums = (layout.scratch.slices > 1 ? kSums / 4 : 1) * tokens.num_tokens;
  SCORE_LAUNCH(sum_slices, grid_size(frames + ceil_div(sums, kThreads)), kThreads, 0, stream, layout, tokens.width);
  if (cudaError_t error = cudaGetLastError()) return error;
  SCORE_LAUNCH(frame_measures, grid_size(frames), kFrameThreads, 0, stream, layout, measures, moments);
  if (cudaError_t error = cudaGetLastError()) return error;
  SCORE_LAUNCH(video_moments, grid_size(tokens.num_videos), kMomentThreads, 0, stream, layout, moments);
  return cudaGetLastError();
}

cudaError_t relative_measures(
    const RelativeBatch& batch, float* measures, double* moments, void* workspace, size_t* workspace_bytes,
    cudaStream_t stream) {
  const RelativeScratch scratch = divide(batch, workspace, workspace_bytes);
  if (workspace == nullptr) return cudaSuccess;
  const TokenBatch& tokens = batch.tokens;
  const RelativeLayout layout{
      {tokens.cu_seqlens, tokens.num_videos, tokens.num_tokens}, tokens.tokens_per_frame, batch.columns, scratch};
  int tile_frames = 0;
  if (cudaError_t error = choose_tile_frames(tokens, &tile_frames)) return error;
  if (cudaError_t error = number_work(layout, tile_frames, stream)) return error;
  if (tokens.num_tokens > 0 && batch.num_frames > 0) {
    if (cudaError_t error = directions(tokens, layout, measures, stream)) return error;
    if (cudaError_t error = products(tokens, layout, tile_frames, stream)) return error;
    return finish_measures(tokens, layout, measures, moments, stream);
  }
  SCORE_LAUNCH(video_moments, grid_size(tokens.num_videos), kMomentThreads, 0, stream, layout, moments);
  return cudaGetLastError();
}

}  // namespace score::cuda
