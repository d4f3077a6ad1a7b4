// First pass of relative_measures: each token's norm, and the mean direction of each frame and each video.
//
// A block takes a run of some rows of one frame. It holds some rows in registers until their norms are known, then
// adds their directions up: every token is read once. Sums of runs are added in a fixed order to means of frames, and
// those to means of videos.
//
// 40,000 x 3,584 bfloat16: reads 287 MB and writes 15 MB of sums of runs, 0.6 Gflop. Measured on an H200 by Nsight
// Compute: 83 us, where reading the tokens alone takes 65; means of frames 9, of videos 5.
#include <cfloat>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "elements.cuh"
#include "relative.cuh"
#include "score/sums.h"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxWarps = kThreads / 32;

// Numbers of frames, runs and tiles of a video, and their sums.
struct Work {
  int64_t frames, runs, tiles;
};
struct AddWork {
  __device__ Work operator()(const Work& a, const Work& b) const {
    return {a.frames + b.frames, a.runs + b.runs, a.tiles + b.tiles};
  }
};

__device__ inline int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }

// One block.
__global__ void __launch_bounds__(kThreads) number_work_kernel(RelativeLayout layout, int tile_frames) {
  using Scan = cub::BlockScan<Work, kThreads>;
  __shared__ typename Scan::TempStorage storage;
  const RelativeScratch& scratch = layout.scratch;
  Work before = {0, 0, 0};
  for (int64_t begin = 0; begin < layout.batch.num_videos; begin += kThreads) {
    const int64_t video = begin + threadIdx.x;
    Work work = {0, 0, 0}, through, total;
    if (video < layout.batch.num_videos) {
      const VideoShape shape = layout.whole_shape(video);
      work.frames = shape.frames;
      work.runs = shape.frames * shape.runs_per_frame(layout.scratch.run_rows);
      work.tiles = ceil_div(shape.frames, tile_frames) * tiles_per_frame(shape);
    }
    Scan(storage).InclusiveScan(work, through, AddWork(), total);
    if (video < layout.batch.num_videos) {
      scratch.first_frame[video + 1] = at_most(before.frames + through.frames, scratch.num_frames);
      scratch.first_run[video + 1] = at_most(before.runs + through.runs, scratch.max_runs);
      scratch.first_tile[video + 1] = before.tiles + through.tiles;
    }
    before = AddWork()(before, total);
    __syncthreads();
  }
  if (threadIdx.x == 0) scratch.first_frame[0] = scratch.first_run[0] = scratch.first_tile[0] = 0;
}

// Rows begin .. end of the batch, whose directions go to a row of `directions`.
struct Run {
  int64_t begin, end;
};

__device__ Run find_run(const RelativeLayout& layout, int64_t number) {
  const int64_t video = layout.find(layout.scratch.first_run, number);
  const VideoShape shape = layout.whole_shape(video);
  const int64_t per_frame = shape.runs_per_frame(layout.scratch.run_rows),
                run = number - layout.scratch.first_run[video];
  const int64_t rows = ceil_div(shape.in_frame, per_frame), from = at_most(run % per_frame * rows, shape.in_frame);
  const int64_t frame = shape.begin + run / per_frame * shape.in_frame;
  return {frame + from, frame + at_most(from + rows, shape.in_frame)};
}

struct Norm {
  float scale;  // see Direction
  float log;
};

__device__ inline Norm norm_of(double square) {
  const double norm = sqrt(square);
  if (!(norm <= DBL_MAX)) return {NAN, NAN};  // of what is not finite
  if (norm == 0.0) return {0.0f, -INFINITY};
  const float log_norm = static_cast<float>(0.5 * log(square));
  if (norm > 0x1p120) return {-static_cast<float>(0x1p60 / norm), log_norm};
  if (norm < 0x1p-120) return {-static_cast<float>(0x1p-60 / norm), log_norm};
  return {static_cast<float>(1.0 / norm), log_norm};
}

// The sum over a block's warps is known to all threads after two barriers.
struct WideStorage {
  cub::WarpReduce<double>::TempStorage reduce[kMaxWarps];
  double sums[kMaxWarps];
};

__device__ double block_sum(double value, WideStorage& storage) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  __syncthreads();
  const double sum = cub::WarpReduce<double>(storage.reduce[warp]).Sum(value);
  if (threadIdx.x % 32 == 0) storage.sums[warp] = sum;
  __syncthreads();
  double total = 0.0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += storage.sums[w];
  return total;
}

// A block per run; its threads share a row, kVectors 16-byte vectors each. They hold kRows rows, and the next kRows are
// on their way meanwhile.
template <typename T, int kVectors>
__global__ void __launch_bounds__(kThreads, kVectors <= 4 ? 2 : 1)
    direction_vectors(const uint4* tokens, RelativeLayout layout, int row_vectors, float* measures) {
  constexpr int kElements = kVectorElements<T>;
  constexpr int kRows = 8 / kVectors;
  using WarpSum = cub::WarpReduce<float>;
  __shared__ typename WarpSum::TempStorage reduce[kMaxWarps];
  __shared__ float squares[2][kRows][kMaxWarps];  // used alternately, so that there is one barrier for kRows rows
  __shared__ WideStorage wide;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const RelativeScratch& scratch = layout.scratch;
  int turn = 0;
  for (int64_t number = blockIdx.x; number < scratch.first_run[layout.batch.num_videos]; number += gridDim.x) {
    const Run run = find_run(layout, number);
    float sums[kVectors][kElements] = {};
    uint4 next[kRows][kVectors];
    const auto load = [&](int64_t row) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          const int at = v * threads + thread;
          next[r][v] = uint4{0, 0, 0, 0};
          if (at < row_vectors && row + r < run.end) next[r][v] = __ldg(tokens + (row + r) * row_vectors + at);
        }
      }
    };
    load(run.begin);
    for (int64_t row = run.begin; row < run.end; row += kRows, turn ^= 1) {
      uint4 raw[kRows][kVectors];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) raw[r][v] = next[r][v];
      }
      load(row + kRows);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float square = 0.0f;
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          float values[kElements];
          unpack<T>(raw[r][v], values);
#pragma unroll
          for (int e = 0; e < kElements; ++e) square = fmaf(values[e], values[e], square);
        }
        __syncwarp();
        square = WarpSum(reduce[warp]).Sum(square);
        if (thread % 32 == 0) squares[turn][r][warp] = square;
      }
      __syncthreads();
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (row + r >= run.end) continue;
        float square = 0.0f;
        for (int w = 0; w < threads / 32; ++w) square += squares[turn][r][w];
        Norm norm = {1.0f / sqrtf(square), 0.0f};
        if (!sum_is_exact(square)) {  // for the whole block
          double mine = 0.0;
#pragma unroll
          for (int v = 0; v < kVectors; ++v) {
            float values[kElements];
            unpack<T>(raw[r][v], values);
#pragma unroll
            for (int e = 0; e < kElements; ++e) mine += static_cast<double>(values[e]) * values[e];
          }
          norm = norm_of(block_sum(mine, wide));
        } else if (thread == 0) {
          norm.log = 0.5f * logf(square);
        }
        if (thread == 0) {
          scratch.scale[row + r] = norm.scale;
          measures[(row + r) * kMeasures + kLogNorm] = norm.log;
        }
        const Direction direction(norm.scale);
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          float values[kElements];
          unpack<T>(raw[r][v], values);
          if (direction.first != 1.0f) {
#pragma unroll
            for (int e = 0; e < kElements; ++e) values[e] *= direction.first;
          }
#pragma unroll
          for (int e = 0; e < kElements; ++e) sums[v][e] = fmaf(values[e], direction.second, sums[v][e]);
        }
      }
    }
    float4* out = reinterpret_cast<float4*>(scratch.directions + number * row_vectors * kElements);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int at = v * threads + thread;
      if (at >= row_vectors) continue;
#pragma unroll
      for (int q = 0; q < kElements / 4; ++q) {
        const float* sum = sums[v] + 4 * q;
        out[at * (kElements / 4) + q] = float4{sum[0], sum[1], sum[2], sum[3]};
      }
    }
  }
}

// Rows of any width and alignment: each is read twice, and the sums are kept in memory.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    direction_elements(const T* tokens, RelativeLayout layout, int64_t width, float* measures) {
  __shared__ WideStorage wide;
  const RelativeScratch& scratch = layout.scratch;
  for (int64_t number = blockIdx.x; number < scratch.first_run[layout.batch.num_videos]; number += gridDim.x) {
    const Run run = find_run(layout, number);
    float* sums = scratch.directions + number * width;
    for (int64_t row = run.begin; row < run.end; ++row) {
      double mine = 0.0;
      for (int64_t d = threadIdx.x; d < width; d += kThreads) {
        const double value = to_float(tokens[row * width + d]);
        mine += value * value;
      }
      const Norm norm = norm_of(block_sum(mine, wide));
      if (threadIdx.x == 0) {
        scratch.scale[row] = norm.scale;
        measures[row * kMeasures + kLogNorm] = norm.log;
      }
      const Direction direction(norm.scale);
      for (int64_t d = threadIdx.x; d < width; d += kThreads) {
        const float unit = to_float(tokens[row * width + d]) * direction.first * direction.second;
        sums[d] = row == run.begin ? unit : sums[d] + unit;
      }
    }
  }
}

// A thread per frame and column: the sums of the frame's runs become its mean, in the first one's place.
__global__ void __launch_bounds__(kThreads) frame_means(RelativeLayout layout, int64_t width) {
  const RelativeScratch& scratch = layout.scratch;
  const int64_t blocks = ceil_div(width, kThreads);  // of a frame
  for (int64_t block = blockIdx.x; block < scratch.num_frames * blocks; block += gridDim.x) {
    const int64_t number = block / blocks, column = block % blocks * kThreads + threadIdx.x;
    if (number >= scratch.first_frame[layout.batch.num_videos] || column >= width) continue;
    const int64_t video = layout.find(scratch.first_frame, number);
    const VideoShape shape = layout.shape(video);
    const int64_t frame = number - shape.first_frame;
    const int64_t first = layout.run_row(video, shape, frame);
    const int runs = static_cast<int>(
        layout.run_row(video, shape, frame, shape.runs_per_frame(layout.scratch.run_rows) - 1) - first + 1);
    float* const sums = scratch.directions + first * width + column;
    double sum = 0.0;
#pragma unroll 10
    for (int run = 0; run < runs; ++run) sum += sums[run * width];
    *sums = static_cast<float>(sum / static_cast<double>(shape.in_frame));
  }
}

// A block per video and 32 columns, a warp for every eighth frame.
__global__ void __launch_bounds__(kThreads) video_means(RelativeLayout layout, int64_t width) {
  __shared__ double partial[kMaxWarps][32];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t blocks = ceil_div(width, int64_t{32});  // of a video
  for (int64_t block = blockIdx.x; block < layout.batch.num_videos * blocks; block += gridDim.x) {
    const int64_t video = block / blocks, column = block % blocks * 32 + lane;
    const VideoShape shape = layout.shape(video);
    double sum = 0.0;
    if (column < width) {
#pragma unroll 8
      for (int64_t frame = warp; frame < shape.frames; frame += kMaxWarps) {
        sum += layout.scratch.directions[layout.run_row(video, shape, frame) * width + column];
      }
    }
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < width) {
      for (int w = 1; w < kMaxWarps; ++w) sum += partial[w][lane];
      const double frames = static_cast<double>(shape.frames < 1 ? 1 : shape.frames);
      layout.scratch.video_means[video * width + column] = static_cast<float>(sum / frames);
    }
    __syncthreads();
  }
}

template <typename T, int kVectors>
cudaError_t launch_vectors(
    const TokenBatch& tokens, const RelativeLayout& layout, int row_vectors, float* measures, cudaStream_t stream) {
  auto kernel = direction_vectors<T, kVectors>;
  const int threads = static_cast<int>(ceil_div(ceil_div(row_vectors, kVectors), 32) * 32);
  SCORE_LAUNCH(
      kernel, grid_size(layout.scratch.max_runs), threads, 0, stream, static_cast<const uint4*>(tokens.tokens), layout,
      row_vectors, measures);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_directions(
    const TokenBatch& tokens, const RelativeLayout& layout, float* measures, cudaStream_t stream) {
  const int64_t row_bytes = tokens.width * static_cast<int64_t>(sizeof(T));
  const int64_t vectors = row_bytes / kVectorBytes;
  constexpr int kMaxVectors = 8;
  if (vectors == 0 || vectors > kMaxVectors * kThreads || !has_vector_rows(tokens.tokens, row_bytes)) {
    auto kernel = direction_elements<T>;
    SCORE_LAUNCH(
        kernel, grid_size(layout.scratch.max_runs), kThreads, 0, stream, static_cast<const T*>(tokens.tokens), layout,
        tokens.width, measures);
    return cudaGetLastError();
  }
  const int row_vectors = static_cast<int>(vectors);
  if (vectors <= 64) return launch_vectors<T, 1>(tokens, layout, row_vectors, measures, stream);
  if (vectors <= 256) return launch_vectors<T, 2>(tokens, layout, row_vectors, measures, stream);
  if (vectors <= 1024) return launch_vectors<T, 4>(tokens, layout, row_vectors, measures, stream);
  return launch_vectors<T, kMaxVectors>(tokens, layout, row_vectors, measures, stream);
}

}  // namespace

cudaError_t number_work(const RelativeLayout& layout, int tile_frames, cudaStream_t stream) {
  SCORE_LAUNCH(number_work_kernel, 1, kThreads, 0, stream, layout, tile_frames);
  return cudaGetLastError();
}

cudaError_t directions(const TokenBatch& tokens, const RelativeLayout& layout, float* measures, cudaStream_t stream) {
  const cudaError_t error = dispatch_dtype(tokens.dtype, [&](auto element) {
    return launch_directions<decltype(element)>(tokens, layout, measures, stream);
  });
  if (error) return error;
  const int64_t width = tokens.width;
  const int64_t frame_blocks = layout.scratch.num_frames * ceil_div(width, kThreads);
  if (frame_blocks > 0) {
    SCORE_LAUNCH(frame_means, grid_size(frame_blocks), kThreads, 0, stream, layout, width);
    if (cudaError_t launched = cudaGetLastError()) return launched;
  }
  SCORE_LAUNCH(
      video_means, grid_size(layout.batch.num_videos * ceil_div(width, int64_t{32})), kThreads, 0, stream, layout,
      width);
  return cudaGetLastError();
}

}  // namespace score::cuda
