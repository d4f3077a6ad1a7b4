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
constexpr int kMaxVectors = 6;                // of one thread
constexpr int kMaxRowVectors = kMaxVectors * kWalkThreads;
constexpr int kFlushRows = 32;  // rows between two barriers, an even number
constexpr int kRowRing = 64;    // rows loaded and not yet flushed: kFlushRows and the two on their way; a power of two
constexpr int kMinRun = 4;      // positions per block, where there are too few for every block to get more

// What the warps of a block found out about the last rows, until the block adds it up.
struct WalkStorage {
  float sums[kRowRing][kMaxWarps][2];  // product and square; the row before a run's first lies in the last one
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
    const int64_t row = storage.row[at % kRowRing];
    const bool is_first = storage.previous[at % kRowRing] == row;
    Sums sums = {0.0f, 0.0f, 0.0f};
    for (unsigned w = 0; w < blockDim.x / 32 && !is_first; ++w) {
      const float* own = storage.sums[at % kRowRing][w];
      const float previous_square = storage.sums[(at + kRowRing - 1) % kRowRing][w][1];
      sums = AddSums()(sums, {own[0], own[1], previous_square});
    }
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

// Four sums over a warp in six exchanges; lane i gets the (i % 4)-th. Each is added up in the same order, so that sums
// of equal numbers are equal.
__device__ inline float sum_four(const float (&values)[4]) {
  const unsigned lane = threadIdx.x % 32;
  const auto exchange = [lane](float even, float odd, unsigned bit) {
    const float own = lane & bit ? odd : even, other = lane & bit ? even : odd;
    return own + __shfl_xor_sync(~0u, other, bit);
  };
  float sum = exchange(exchange(values[0], values[1], 1), exchange(values[2], values[3], 1), 2);
#pragma unroll
  for (unsigned distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  return sum;
}

// A block per run of positions; its threads share a row of row_vectors 16-byte vectors, kVectors each. A thread has its
// own vectors of the next two rows on their way in registers while it compares the last two, and waits for nobody, so
// there is no barrier except once in kFlushRows rows.
//
// 40,000 x 3,584 bfloat16, measured on an H200 in a CUDA graph: 74.5 us, where reading the tokens alone takes 65.
// Through shared memory by cp.async, three rows ahead, it took 84, whatever the number of blocks, rows ahead and
// registers.
template <typename T, Metric kMetric, int kVectors>
__global__ void __launch_bounds__(kWalkThreads) surprise_walk(
    const uint4* tokens, PackedBatch batch, const int32_t* tokens_per_frame, int row_vectors, int run, float first,
    float* out) {
  constexpr int kElements = kVectorElements<T>;
  __shared__ WalkStorage storage;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32;

  const int64_t start = static_cast<int64_t>(blockIdx.x) * run;
  const int64_t positions = start + run < batch.num_tokens ? run : batch.num_tokens - start;
  const T* rows = reinterpret_cast<const T*>(tokens);
  const int64_t width = static_cast<int64_t>(row_vectors) * kElements;
  Walk walk(batch, tokens_per_frame, start);

  using Raw = uint4[kVectors];
  const auto load_row = [&](int64_t row, Raw& raw) {
    const uint4* from = tokens + row * row_vectors + thread;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      raw[v] = uint4{};
      if (v * threads + thread < row_vectors) raw[v] = __ldg(from + v * threads);
    }
  };
  int loaded = 0;
  const auto load_next = [&](Raw& raw) {
    if (loaded == positions || !walk.valid()) return;
    load_row(walk.row(), raw);
    if (thread == 0) {
      storage.row[loaded % kRowRing] = walk.row();
      storage.previous[loaded % kRowRing] = walk.is_first_frame() ? walk.row() : walk.previous_row();
    }
    walk.advance();
    ++loaded;
  };

  // Adds up a row as compared with the one before, into sums [2].
  const auto compare = [&](const Raw& before, const Raw& row, float* sums) {
    Sums own = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      float x[kElements], p[kElements];
      unpack<T>(row[v], x);
      unpack<T>(before[v], p);
#pragma unroll
      for (int e = 0; e < kElements; ++e) accumulate<kMetric>(x[e], p[e], own);
    }
    sums[0] = own.product;
    sums[1] = own.square;
  };

  Raw last = {}, next[2] = {};
  if (walk.valid() && !walk.is_first_frame()) {
    float sums[4] = {};
    load_row(walk.previous_row(), last);
    compare(last, last, sums);
    const float sum = sum_four(sums);
    if (lane < 2) storage.sums[kRowRing - 1][warp][lane] = sum;
  }
  load_next(next[0]);
  load_next(next[1]);

  int flushed = 0;
  for (int done = 0; done < loaded; done += 2) {
    Raw row[2];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) row[0][v] = next[0][v], row[1][v] = next[1][v];
    load_next(next[0]);
    load_next(next[1]);
    float sums[4];  // where there is no second row, something of it that nobody looks at
    compare(last, row[0], sums);
    compare(row[0], row[1], sums + 2);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) last[v] = row[1][v];
    const float sum = sum_four(sums);
    if (lane < 4) storage.sums[(done + lane / 2) % kRowRing][warp][lane % 2] = sum;
    if (done + 2 == flushed + kFlushRows && done + 2 < loaded) {
      flush<T, kMetric>(storage, rows, width, flushed, done + 2, first, out);
      flushed = done + 2;
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
  auto kernel = surprise_walk<T, kMetric, kVectors>;
  const int threads = static_cast<int>(ceil_div(ceil_div(row_vectors, kVectors), 32) * 32);
  int64_t resident = 0;
  if (cudaError_t error = resident_blocks(kernel, threads, 0, &resident)) return error;
  const int64_t run = std::max<int64_t>(kMinRun, ceil_div(batch.num_tokens, resident));
  const unsigned grid = grid_size(ceil_div(batch.num_tokens, run));
  SCORE_LAUNCH(
      kernel, grid, threads, 0, stream, static_cast<const uint4*>(batch.tokens), packed, batch.tokens_per_frame,
      row_vectors, static_cast<int>(run), first, out);
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
