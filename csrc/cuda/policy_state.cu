// policy_state: the rows that the policy network reads, [LayerNorm(x) ; LayerNorm(x - previous x) ; features].
//
// A block per row. Rows of 16-byte vectors are read once and kept in registers while mean, variance and output are
// taken of them; both halves share their barriers. Other rows are read again for each of the three.
//
// 40,000 x 3,584 bfloat16 to bfloat16: 287 MB read (the previous row comes from the L2 cache), 573 MB written; at the
// 4.2 TB/s that a copy was measured to run at on an H200, 0.2 ms.
#include <cfloat>
#include <cub/warp/warp_reduce.cuh>

#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kMaxWarps = 8;
constexpr int kThreads = 32 * kMaxWarps;  // at most; no more than a row needs
constexpr int kMaxVectors = 4;            // of one thread

template <typename Value>
struct SumStorage {
  typename cub::WarpReduce<Value>::TempStorage reduce[kMaxWarps];
  Value sums[2][kMaxWarps];
};
struct Storage {
  SumStorage<float> narrow;
  SumStorage<double> wide;
};

// Replaces each of the values by its sum over the block.
template <typename Value, int kCount>
__device__ void block_sums(Value (&values)[kCount], SumStorage<Value>& storage) {
  static_assert(kCount <= 2);
  const unsigned warp = threadIdx.x / 32;
  __syncthreads();  // the sums before these have been read
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    __syncwarp();
    const Value sum = cub::WarpReduce<Value>(storage.reduce[warp]).Sum(values[i]);
    if (threadIdx.x % 32 == 0) storage.sums[i][warp] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = storage.sums[i][0];
    for (unsigned w = 1; w < blockDim.x / 32; ++w) values[i] += storage.sums[i][w];
  }
}

template <typename Value>
__device__ Value block_sum(Value value, SumStorage<Value>& storage) {
  Value values[1] = {value};
  block_sums(values, storage);
  return values[0];
}

// Whether the squares of a row's deviations are floats. Those that underflow do not show beside epsilon, unless that is
// tiny itself.
__device__ bool squares_are_exact(float squares, float epsilon) {
  return squares <= FLT_MAX && !(epsilon < 1e-20f && squares < 1e-30f);
}

__device__ float layer_norm_scale(float squares, int64_t width, float epsilon) {
  return 1.0f / sqrtf(squares / static_cast<float>(width) + epsilon);
}

// x, or x - previous where `previous` is given, of one element.
template <typename Value, typename T>
__device__ Value half_value(const T* x, const T* previous, int64_t d) {
  const Value value = to_float(x[d]);
  return previous ? value - static_cast<Value>(to_float(previous[d])) : value;
}

// LayerNorm of x, or of x - previous, into out [width], for rows of any width and alignment. Value is float, or double
// for rows whose squares are no floats.
template <typename Value, typename T, typename Out>
__device__ void normalise(const T* x, const T* previous, int64_t width, float epsilon, Out* out, Storage& storage) {
  Value sum = 0, squares = 0;
  Value mean, scale;
  for (int64_t d = threadIdx.x; d < width; d += blockDim.x) sum += half_value<Value>(x, previous, d);
  if constexpr (sizeof(Value) == sizeof(double)) {
    mean = block_sum(sum, storage.wide) / static_cast<double>(width);
  } else {
    mean = block_sum(sum, storage.narrow) / static_cast<float>(width);
  }
  for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
    const Value deviation = half_value<Value>(x, previous, d) - mean;
    squares += deviation * deviation;
  }
  if constexpr (sizeof(Value) == sizeof(double)) {
    squares = block_sum(squares, storage.wide);
    scale = 1.0 / sqrt(squares / static_cast<double>(width) + static_cast<double>(epsilon));
  } else {
    squares = block_sum(squares, storage.narrow);
    if (!squares_are_exact(squares, epsilon)) {  // the whole block: all its threads know the sum
      normalise<double>(x, previous, width, epsilon, out, storage);
      return;
    }
    scale = layer_norm_scale(squares, width, epsilon);
  }
  for (int64_t d = threadIdx.x; d < width; d += blockDim.x) {
    out[d] = from_float<Out>(static_cast<float>((half_value<Value>(x, previous, d) - mean) * scale));
  }
}

template <typename Out>
__device__ void copy_features(const StateParts& parts, int64_t row, Out* out) {
  for (int64_t p = threadIdx.x; p < parts.features_width; p += blockDim.x) {
    out[p] = from_float<Out>(parts.features[row * parts.features_width + p]);
  }
}

// out [end - begin, columns]
template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads) state_elements(
    const T* tokens, PackedBatch batch, const int32_t* tokens_per_frame, int64_t width, StateParts parts,
    int64_t columns, int64_t begin, int64_t end, Out* out) {
  __shared__ Storage storage;
  for (int64_t row = begin + blockIdx.x; row < end; row += gridDim.x) {
    const int64_t video = find_video(batch, row);
    const int64_t previous = row - frame_tokens(tokens_per_frame, video);
    const T* x = tokens + row * width;
    Out* to = out + (row - begin) * columns;
    if (parts.token) {
      normalise<float, T>(x, nullptr, width, parts.epsilon, to, storage);
      to += width;
    }
    if (parts.residual) {
      if (previous < video_range(batch, video).begin) {
        for (int64_t d = threadIdx.x; d < width; d += kThreads) to[d] = from_float<Out>(0.0f);
      } else {
        normalise<float>(x, tokens + previous * width, width, parts.epsilon, to, storage);
      }
      to += width;
    }
    copy_features(parts, row, to);
  }
}

// A thread's share of one half of a row: vectors threadIdx.x, threadIdx.x + blockDim.x, ..
template <typename T, int kVectors>
struct Share {
  static constexpr int kElements = kVectorElements<T>;
  float values[kVectors][kElements];

  __device__ static bool has(int v, int row_vectors) {
    return v * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x) < row_vectors;
  }
  __device__ static int64_t column(int v) { return (static_cast<int64_t>(v) * blockDim.x + threadIdx.x) * kElements; }

  template <typename Term>
  __device__ float sum(int row_vectors, Term term) const {
    float total = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!has(v, row_vectors)) continue;
#pragma unroll
      for (int e = 0; e < kElements; ++e) total += term(values[v][e]);
    }
    return total;
  }

  // Into out [width]: by 16-byte vectors (8 from float32 to a half as wide dtype), or, where its rows may begin
  // anywhere, through shared memory one column per thread.
  template <typename Out>
  __device__ void store(int row_vectors, float mean, float scale, bool by_vectors, Out* staged, Out* out) const {
    Out* to = by_vectors ? out : staged;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!has(v, row_vectors)) continue;
      Out elements[kElements];
#pragma unroll
      for (int e = 0; e < kElements; ++e) elements[e] = from_float<Out>((values[v][e] - mean) * scale);
      store_vector(elements, to + column(v));
    }
    if (by_vectors) return;
    __syncthreads();
    for (int d = static_cast<int>(threadIdx.x); d < row_vectors * kElements; d += blockDim.x) out[d] = staged[d];
    __syncthreads();
  }
};

// As state_elements, for rows of row_vectors 16-byte vectors, kVectors per thread. Dynamic shared memory where out's
// rows are none: a row of one half.
template <typename T, typename Out, int kVectors>
__global__ void __launch_bounds__(kThreads) state_vectors(
    const T* tokens, PackedBatch batch, const int32_t* tokens_per_frame, int row_vectors, StateParts parts,
    int64_t columns, bool by_vectors, int64_t begin, int64_t end, Out* out) {
  __shared__ Storage storage;
  SCORE_DYNAMIC_SHARED(uint4, staging);
  Out* const staged = reinterpret_cast<Out*>(staging);
  using RowShare = Share<T, kVectors>;
  const int64_t width = static_cast<int64_t>(row_vectors) * RowShare::kElements;
  const float epsilon = parts.epsilon;

  for (int64_t row = begin + blockIdx.x; row < end; row += gridDim.x) {
    const T* x = tokens + row * width;
    RowShare token, residual;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (RowShare::has(v, row_vectors)) {
        unpack<T>(__ldg(reinterpret_cast<const uint4*>(x + RowShare::column(v))), token.values[v]);
      }
    }
    const int64_t video = find_video(batch, row);
    const int64_t previous_row = row - frame_tokens(tokens_per_frame, video);
    const bool is_first = previous_row < video_range(batch, video).begin;
    const T* previous = tokens + (is_first ? row : previous_row) * width;  // x - x: the zeros of a first frame
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (!parts.residual || !RowShare::has(v, row_vectors)) continue;
      unpack<T>(__ldg(reinterpret_cast<const uint4*>(previous + RowShare::column(v))), residual.values[v]);
#pragma unroll
      for (int e = 0; e < RowShare::kElements; ++e) {
        residual.values[v][e] = is_first ? 0.0f : token.values[v][e] - residual.values[v][e];
      }
    }

    const auto itself = [](float value) { return value; };
    float means[2] = {
        parts.token ? token.sum(row_vectors, itself) : 0.0f, parts.residual ? residual.sum(row_vectors, itself) : 0.0f};
    block_sums(means, storage.narrow);
    for (float& mean : means) mean /= static_cast<float>(width);
    const auto deviation = [&](float mean) { return [mean](float value) { return (value - mean) * (value - mean); }; };
    float squares[2] = {
        parts.token ? token.sum(row_vectors, deviation(means[0])) : 0.0f,
        parts.residual ? residual.sum(row_vectors, deviation(means[1])) : 0.0f};
    block_sums(squares, storage.narrow);

    Out* to = out + (row - begin) * columns;
    if (parts.token) {
      if (squares_are_exact(squares[0], epsilon)) {
        const float scale = layer_norm_scale(squares[0], width, epsilon);
        token.store(row_vectors, means[0], scale, by_vectors, staged, to);
      } else {
        normalise<double, T>(x, nullptr, width, epsilon, to, storage);
      }
      to += width;
    }
    if (parts.residual) {
      if (is_first || squares_are_exact(squares[1], epsilon)) {
        const float scale = is_first ? 0.0f : layer_norm_scale(squares[1], width, epsilon);
        residual.store(row_vectors, means[1], scale, by_vectors, staged, to);
      } else {
        normalise<double>(x, previous, width, epsilon, to, storage);
      }
      to += width;
    }
    copy_features(parts, row, to);
  }
}

struct Rows {
  const TokenBatch& batch;
  const StateParts& parts;
  int64_t begin, end;
  void* out;
  cudaStream_t stream;
};

template <typename T, typename Out>
cudaError_t launch_elements(const Rows& rows) {
  const TokenBatch& batch = rows.batch;
  const PackedBatch packed{batch.cu_seqlens, batch.num_videos, batch.num_tokens};
  auto kernel = state_elements<T, Out>;
  SCORE_LAUNCH(
      kernel, grid_size(rows.end - rows.begin), kThreads, 0, rows.stream, static_cast<const T*>(batch.tokens), packed,
      batch.tokens_per_frame, batch.width, rows.parts, rows.parts.columns(batch.width), rows.begin, rows.end,
      static_cast<Out*>(rows.out));
  return cudaGetLastError();
}

template <typename T, typename Out, int kVectors>
cudaError_t launch_vectors(const Rows& rows, int row_vectors) {
  const TokenBatch& batch = rows.batch;
  const PackedBatch packed{batch.cu_seqlens, batch.num_videos, batch.num_tokens};
  const int64_t columns = rows.parts.columns(batch.width), half_bytes = batch.width * static_cast<int64_t>(sizeof(Out));
  const bool by_vectors =
      half_bytes % kVectorBytes == 0 && has_vector_rows(rows.out, columns * static_cast<int64_t>(sizeof(Out)));
  const int threads = static_cast<int>(ceil_div(ceil_div(row_vectors, kVectors), 32) * 32);
  const size_t shared_bytes = by_vectors ? 0 : static_cast<size_t>(half_bytes);
  auto kernel = state_vectors<T, Out, kVectors>;
  SCORE_LAUNCH(
      kernel, grid_size(rows.end - rows.begin), threads, shared_bytes, rows.stream, static_cast<const T*>(batch.tokens),
      packed, batch.tokens_per_frame, row_vectors, rows.parts, columns, by_vectors, rows.begin, rows.end,
      static_cast<Out*>(rows.out));
  return cudaGetLastError();
}

template <typename T, typename Out>
cudaError_t launch(const Rows& rows) {
  const int64_t row_bytes = rows.batch.width * static_cast<int64_t>(sizeof(T)), vectors = row_bytes / kVectorBytes;
  if (vectors > kMaxVectors * kThreads || !has_vector_rows(rows.batch.tokens, row_bytes)) {
    return launch_elements<T, Out>(rows);
  }
  const int row_vectors = static_cast<int>(vectors);
  return vectors <= kThreads ? launch_vectors<T, Out, 1>(rows, row_vectors)
                             : launch_vectors<T, Out, kMaxVectors>(rows, row_vectors);
}

}  // namespace

cudaError_t policy_state(
    const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType out_dtype, void* out,
    cudaStream_t stream) {
  if (begin >= end || parts.columns(batch.width) == 0) return cudaSuccess;
  const Rows rows{batch, parts, begin, end, out, stream};
  return dispatch_dtype(batch.dtype, [&](auto element) {
    using T = decltype(element);
    return dispatch_dtype(out_dtype, [&](auto out_element) { return launch<T, decltype(out_element)>(rows); });
  });
}

}  // namespace score::cuda
