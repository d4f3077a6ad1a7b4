// surprise: how far a token is from the one at the same place in the frame before.
//
// Reads dominate, so each row should come from memory once. Tokens are therefore walked place-major (walk.cuh):
// consecutive positions compare consecutive rows, and the earlier row is still in registers. Every block takes an equal
// run of positions, whatever videos they fall into, so ragged batches balance by themselves and the host needs to know
// no offset; what is read twice is one row per run.
#include <cub/block/block_reduce.cuh>
#include <cub/warp/warp_reduce.cuh>

#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "pipeline.cuh"
#include "score/sums.h"
#include "videos.cuh"
#include "walk.cuh"

namespace score::cuda {
namespace {

// What a comparison of two rows is made of. cosine: x.p, x.x and p.p; l2: `product`, which is (x-p).(x-p), and in
// `square` the sum of |x-p|, which tells a difference of 0 from one whose square underflows.
struct Sums {
  float product;
  float square;
  float previous_square;
};

struct AddSums {
  __device__ Sums operator()(const Sums& a, const Sums& b) const {
    return {a.product + b.product, a.square + b.square, a.previous_square + b.previous_square};
  }
};

// Adds one element. fmaf, so that the compiler has no say in how it rounds: of two equal rows the three sums are equal
// to the last bit, and their surprise is exactly 0.
template <Metric kMetric>
__device__ void accumulate(float x, float previous, Sums& sums) {
  if constexpr (kMetric == Metric::kCosine) {
    sums.product = fmaf(x, previous, sums.product);
    sums.square = fmaf(x, x, sums.square);
  } else {
    const float difference = x - previous;
    sums.product = fmaf(difference, difference, sums.product);
    sums.square += fabsf(difference);
  }
}

// Whether the sums are what they should be; where they are not, the rows are added up once more, in double.
template <Metric kMetric>
__device__ bool is_exact(const Sums& sums) {
  if constexpr (kMetric == Metric::kL2) return sum_is_exact(sums.product) || sums.square == 0.0f;
  return sum_is_exact(sums.square) && sum_is_exact(sums.previous_square);
}

template <Metric kMetric>
__device__ float finish(double product, double square, double previous_square) {
  if constexpr (kMetric == Metric::kL2) return static_cast<float>(sqrt(product));
  // The product of the squares is in range, and the root of a square is exact.
  const double squares = square * previous_square;
  if (squares == 0.0) return 1.0f;  // a zero row is like no other: cosine 0, as F.cosine_similarity has it
  const float surprise = static_cast<float>(1.0 - product / sqrt(squares));
  return surprise < 0.0f ? 0.0f : surprise;
}

template <Metric kMetric>
__device__ float finish(const Sums& sums) {
  if constexpr (kMetric == Metric::kL2) return sqrtf(sums.product);
  return finish<kMetric>(sums.product, sums.square, sums.previous_square);
}

constexpr int kMaxWarps = 8;

struct WideStorage {
  cub::WarpReduce<double>::TempStorage reduce[kMaxWarps];
  double sums[3][kMaxWarps];
};

// The surprise of one row in double. Called by all threads of the block, at most kMaxWarps warps.
template <typename T, Metric kMetric>
__device__ void wide_surprise(const T* x, const T* previous, int64_t width, WideStorage& storage, float* out) {
  double sums[3] = {};  // as Sums; one loop for all, so that of equal rows they are equal here too
  for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
    const double a = to_float(x[d]), b = to_float(previous[d]);
    if constexpr (kMetric == Metric::kCosine) {
      sums[0] = fma(a, b, sums[0]);
      sums[1] = fma(a, a, sums[1]);
      sums[2] = fma(b, b, sums[2]);
    } else {
      sums[0] = fma(a - b, a - b, sums[0]);
    }
  }
  const unsigned warp = threadIdx.x / 32;
  for (int s = 0; s < 3; ++s) {
    __syncwarp();
    const double sum = cub::WarpReduce<double>(storage.reduce[warp]).Sum(sums[s]);
    if (threadIdx.x % 32 == 0) storage.sums[s][warp] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total[3] = {};
    for (int s = 0; s < 3; ++s) {
      for (unsigned w = 0; w < blockDim.x / 32; ++w) total[s] += storage.sums[s][w];
    }
    *out = finish<kMetric>(total[0], total[1], total[2]);
  }
  __syncthreads();
}

constexpr int kWalkThreads = 32 * kMaxWarps;  // at most; no more than a row needs
constexpr int kMaxVectors = 6;  // of one thread; three stages of such rows fit the shared memory of all but Turing
constexpr int kMaxRowVectors = kMaxVectors * kWalkThreads;
constexpr int kStages = 3;      // rows on their way per block: what keeps a fast memory busy
constexpr int kFlushRows = 32;  // rows between two barriers
constexpr int kRowRing = 64;    // rows loaded and not yet flushed: more than kStages + kFlushRows, a power of two
constexpr int kMinRun = 4;      // positions per block, where there are too few for every block to get more

// What the warps of a block found out about the last rows, until the block adds it up.
struct WalkStorage {
  Sums sums[kFlushRows][kMaxWarps];
  int64_t row[kRowRing];
  int64_t previous[kRowRing];  // itself in a first frame
  bool exact[kFlushRows];
  WideStorage wide;
};

// Called by all threads: writes the surprise of rows begin .. end, counted from the start of the block's run.
template <typename T, Metric kMetric>
__device__ void flush(
    WalkStorage& storage, const T* tokens, int64_t width, int begin, int end, float first, float* out) {
  __syncthreads();
  const int at = begin + static_cast<int>(threadIdx.x);
  bool exact = true;
  if (at < end) {
    Sums sums = {0.0f, 0.0f, 0.0f};
    for (unsigned w = 0; w < blockDim.x / 32; ++w) sums = AddSums()(sums, storage.sums[at % kFlushRows][w]);
    const int64_t row = storage.row[at % kRowRing];
    const bool is_first = storage.previous[at % kRowRing] == row;
    exact = is_first || is_exact<kMetric>(sums);
    storage.exact[at % kFlushRows] = exact;
    if (exact) out[row] = is_first ? first : finish<kMetric>(sums);
  }
  if (__syncthreads_or(!exact)) {
    for (int i = begin; i < end; ++i) {
      if (storage.exact[i % kFlushRows]) continue;
      const int64_t row = storage.row[i % kRowRing], previous = storage.previous[i % kRowRing];
      wide_surprise<T, kMetric>(tokens + row * width, tokens + previous * width, width, storage.wide, out + row);
    }
  }
}

// A block per run of positions; its threads share a row of row_vectors 16-byte vectors, kVectors each. A thread copies
// its own vectors of the next rows into shared memory asynchronously and waits for nobody else's, so there is no
// barrier except once in kFlushRows rows. Dynamic shared memory: kStages * kVectors * threads vectors.
template <typename T, Metric kMetric, int kVectors>
__global__ void __launch_bounds__(kWalkThreads) surprise_walk(
    const void* tokens, PackedBatch batch, const int32_t* tokens_per_frame, int row_vectors, int run, float first,
    float* out) {
  constexpr int kElements = kVectorElements<T>;
  using WarpSum = cub::WarpReduce<float>;
  __shared__ typename WarpSum::TempStorage reduce[kMaxWarps];
  __shared__ WalkStorage storage;
  SCORE_DYNAMIC_SHARED(uint4, stages);
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x), warp = thread / 32;

  const int64_t start = static_cast<int64_t>(blockIdx.x) * run;
  const int64_t positions = start + run < batch.num_tokens ? run : batch.num_tokens - start;
  const T* rows = static_cast<const T*>(tokens);
  const int64_t width = static_cast<int64_t>(row_vectors) * kElements;
  Walk walk(batch, tokens_per_frame, start);

  const auto copy_row = [&](int64_t row, int stage) {
    const uint4* from = static_cast<const uint4*>(tokens) + row * row_vectors;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int at = v * threads + thread;
      if (at < row_vectors) __pipeline_memcpy_async(&stages[stage * kVectors * threads + at], from + at, kVectorBytes);
    }
  };
  int loaded = 0;
  const auto load_next = [&](int stage) {
    if (loaded < positions && walk.valid()) {
      copy_row(walk.row(), stage);
      if (thread == 0) {
        storage.row[loaded % kRowRing] = walk.row();
        storage.previous[loaded % kRowRing] = walk.is_first_frame() ? walk.row() : walk.previous_row();
      }
      walk.advance();
      ++loaded;
    }
    __pipeline_commit();  // of nothing, at the end, so that the number of commits says which row has arrived
  };

  // Adds up the row in a stage, and leaves it in `previous`.
  float previous[kVectors][kElements] = {};
  const auto compare = [&](int stage) {
    Sums sums = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int at = v * threads + thread;
      if (at >= row_vectors) continue;
      float values[kElements];
      unpack<T>(stages[stage * kVectors * threads + at], values);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        accumulate<kMetric>(values[e], previous[v][e], sums);
        previous[v][e] = values[e];
      }
    }
    return sums;
  };
  const auto warp_sum = [&](float value) {
    __syncwarp();
    return WarpSum(reduce[warp]).Sum(value);
  };

  float previous_square = 0.0f;  // of a warp's first thread: the warp's part of p.p
  if (walk.valid() && !walk.is_first_frame()) {
    copy_row(walk.previous_row(), 0);
    __pipeline_commit();
    wait_for_copies<0>();
    previous_square = warp_sum(compare(0).square);
  }
#pragma unroll
  for (int s = 0; s < kStages; ++s) load_next(s);

  int flushed = 0;
  for (int done = 0, stage = 0; done < loaded;) {
    wait_for_copies<kStages - 1>();
    Sums sums = compare(stage);
    load_next(stage);
    stage = stage + 1 < kStages ? stage + 1 : 0;
    sums.product = warp_sum(sums.product);
    sums.square = warp_sum(sums.square);
    if constexpr (kMetric == Metric::kCosine) {
      sums.previous_square = previous_square;
      previous_square = sums.square;
    }
    if (thread % 32 == 0) storage.sums[done % kFlushRows][warp] = sums;
    if (++done == flushed + kFlushRows) {
      flush<T, kMetric>(storage, rows, width, flushed, done, first, out);
      flushed = done;
    }
  }
  flush<T, kMetric>(storage, rows, width, flushed, loaded, first, out);
}

constexpr int kLoopThreads = 32 * kMaxWarps;

// Rows of any width and alignment, one after the other; both rows are read.
template <typename T, Metric kMetric>
__global__ void __launch_bounds__(kLoopThreads) surprise_loop(
    const T* tokens, PackedBatch batch, const int32_t* tokens_per_frame, int64_t width, float first, float* out) {
  using BlockSum = cub::BlockReduce<Sums, kLoopThreads>;
  __shared__ typename BlockSum::TempStorage storage;
  __shared__ WideStorage wide;
  for (int64_t row = blockIdx.x; row < batch.num_tokens; row += gridDim.x) {
    const int64_t video = find_video(batch, row);
    const int64_t previous = row - frame_tokens(tokens_per_frame, video);
    const bool is_first = previous < video_range(batch, video).begin;
    Sums sums = {0.0f, 0.0f, 0.0f};
    if (!is_first) {
      for (int64_t d = threadIdx.x; d < width; d += kLoopThreads) {
        const float p = to_float(tokens[previous * width + d]);
        accumulate<kMetric>(to_float(tokens[row * width + d]), p, sums);
        sums.previous_square = fmaf(p, p, sums.previous_square);
      }
    }
    __syncthreads();
    sums = BlockSum(storage).Reduce(sums, AddSums());  // known to the first thread
    const bool exact = threadIdx.x != 0 || is_first || is_exact<kMetric>(sums);
    if (threadIdx.x == 0 && exact) out[row] = is_first ? first : finish<kMetric>(sums);
    if (__syncthreads_or(!exact)) {
      wide_surprise<T, kMetric>(tokens + row * width, tokens + previous * width, width, wide, out + row);
    }
  }
}

template <typename T, Metric kMetric>
cudaError_t launch_loop(
    const TokenBatch& batch, const PackedBatch& packed, float first, float* out, cudaStream_t stream) {
  auto kernel = surprise_loop<T, kMetric>;
  int64_t resident = 0;
  if (cudaError_t error = resident_blocks(kernel, kLoopThreads, 0, &resident)) return error;
  const unsigned grid = grid_size(std::min(batch.num_tokens, resident));
  SCORE_LAUNCH(
      kernel, grid, kLoopThreads, 0, stream, static_cast<const T*>(batch.tokens), packed, batch.tokens_per_frame,
      batch.width, first, out);
  return cudaGetLastError();
}

template <typename T, Metric kMetric, int kVectors>
cudaError_t launch_walk(
    const TokenBatch& batch, const PackedBatch& packed, int row_vectors, float first, float* out, cudaStream_t stream) {
  static SharedMemoryLimit limit;
  auto kernel = surprise_walk<T, kMetric, kVectors>;
  constexpr int kThreadBytes = kStages * kVectors * kVectorBytes;
  if (!limit.raise(kernel, kThreadBytes * kWalkThreads)) {  // the widest rows, on Turing with its 64 KB
    return launch_loop<T, kMetric>(batch, packed, first, out, stream);
  }
  const int threads = static_cast<int>(ceil_div(ceil_div(row_vectors, kVectors), 32) * 32);
  const int shared_bytes = kThreadBytes * threads;
  int64_t resident = 0;
  if (cudaError_t error = resident_blocks(kernel, threads, shared_bytes, &resident)) return error;
  const int64_t run = std::max<int64_t>(kMinRun, ceil_div(batch.num_tokens, resident));
  const unsigned grid = grid_size(ceil_div(batch.num_tokens, run));
  SCORE_LAUNCH(
      kernel, grid, threads, shared_bytes, stream, batch.tokens, packed, batch.tokens_per_frame, row_vectors,
      static_cast<int>(run), first, out);
  return cudaGetLastError();
}

template <typename T, Metric kMetric>
cudaError_t launch(const TokenBatch& batch, const PackedBatch& packed, float first, float* out, cudaStream_t stream) {
  const int64_t row_bytes = batch.width * static_cast<int64_t>(sizeof(T));
  const int64_t vectors = row_bytes / kVectorBytes;
  if (vectors == 0 || vectors > kMaxRowVectors || !has_vector_rows(batch.tokens, row_bytes)) {
    return launch_loop<T, kMetric>(batch, packed, first, out, stream);
  }
  // Few threads with much each: fewer partial sums per row, and as many bytes on their way.
  const int row_vectors = static_cast<int>(vectors);
  if (vectors <= 64) return launch_walk<T, kMetric, 1>(batch, packed, row_vectors, first, out, stream);
  if (vectors <= 256) return launch_walk<T, kMetric, 2>(batch, packed, row_vectors, first, out, stream);
  if (vectors <= 1024) return launch_walk<T, kMetric, 4>(batch, packed, row_vectors, first, out, stream);
  return launch_walk<T, kMetric, kMaxVectors>(batch, packed, row_vectors, first, out, stream);
}

}  // namespace

cudaError_t surprise(const TokenBatch& batch, Metric metric, float first, float* out, cudaStream_t stream) {
  if (batch.num_tokens == 0) return cudaSuccess;
  const PackedBatch packed{batch.cu_seqlens, batch.num_videos, batch.num_tokens};
  return dispatch_dtype(batch.dtype, [&](auto element) {
    using T = decltype(element);
    return metric == Metric::kCosine ? launch<T, Metric::kCosine>(batch, packed, first, out, stream)
                                     : launch<T, Metric::kL2>(batch, packed, first, out, stream);
  });
}

}  // namespace score::cuda
