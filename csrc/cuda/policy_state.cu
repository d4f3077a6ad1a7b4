// policy_state: the rows that the policy network reads, [LayerNorm(x) ; LayerNorm(x - previous x) ; features].
//
// A block per row. Mean, variance and output are three passes over the two rows of tokens; the first one brings them
// into the L1 cache, the others find them there. Sums use 16-byte loads where rows allow; the output, whose rows may
// start anywhere because of the columns of features, is written one column per thread.
#include <cfloat>
#include <cub/block/block_reduce.cuh>

#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "videos.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;

template <typename Value>
struct SumStorage {
  typename cub::BlockReduce<Value, kThreads>::TempStorage reduce;
  Value sum;
};
struct Storage {
  SumStorage<float> narrow;
  SumStorage<double> wide;
};

// Sum over the block, known to all its threads.
template <typename Value>
__device__ Value block_sum(Value value, SumStorage<Value>& storage) {
  const Value sum = cub::BlockReduce<Value, kThreads>(storage.reduce).Sum(value);
  if (threadIdx.x == 0) storage.sum = sum;
  __syncthreads();
  const Value result = storage.sum;
  __syncthreads();
  return result;
}

// x, or x - previous where `previous` is given, of one element.
template <typename T>
__device__ float half_value(const T* x, const T* previous, int64_t d) {
  const float value = to_float(x[d]);
  return previous ? value - to_float(previous[d]) : value;
}

// Sum over this thread's share of the columns of term(value).
template <typename T, bool kVector, typename Term>
__device__ float thread_sum(const T* x, const T* previous, int64_t width, Term term) {
  float sum = 0.0f;
  if constexpr (kVector) {
    constexpr int kElements = kVectorElements<T>;
    for (int64_t v = threadIdx.x; v < width / kElements; v += kThreads) {
      float values[kElements], before[kElements];
      unpack<T>(__ldg(reinterpret_cast<const uint4*>(x) + v), values);
      if (previous) unpack<T>(__ldg(reinterpret_cast<const uint4*>(previous) + v), before);
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum += term(previous ? values[e] - before[e] : values[e]);
    }
  } else {
    for (int64_t d = threadIdx.x; d < width; d += kThreads) sum += term(half_value(x, previous, d));
  }
  return sum;
}

// As normalise, in double.
template <typename T, typename Out>
__device__ void wide_normalise(
    const T* x, const T* previous, int64_t width, float epsilon, Out* out, SumStorage<double>& storage) {
  const auto value = [&](int64_t d) {
    return static_cast<double>(to_float(x[d])) - (previous ? static_cast<double>(to_float(previous[d])) : 0.0);
  };
  double sum = 0.0, squares = 0.0;
  for (int64_t d = threadIdx.x; d < width; d += kThreads) sum += value(d);
  const double mean = block_sum(sum, storage) / static_cast<double>(width);
  for (int64_t d = threadIdx.x; d < width; d += kThreads) squares += (value(d) - mean) * (value(d) - mean);
  squares = block_sum(squares, storage);
  const double scale = 1.0 / sqrt(squares / static_cast<double>(width) + static_cast<double>(epsilon));
  for (int64_t d = threadIdx.x; d < width; d += kThreads) {
    out[d] = from_float<Out>(static_cast<float>((value(d) - mean) * scale));
  }
}

// LayerNorm of x, or of x - previous, into out [width].
template <typename T, typename Out, bool kVector>
__device__ void normalise(const T* x, const T* previous, int64_t width, float epsilon, Out* out, Storage& storage) {
  const float sum = block_sum(thread_sum<T, kVector>(x, previous, width, [](float v) { return v; }), storage.narrow);
  const float mean = sum / static_cast<float>(width);
  const float squares = block_sum(
      thread_sum<T, kVector>(x, previous, width, [mean](float v) { return (v - mean) * (v - mean); }), storage.narrow);
  // squares that underflow do not show beside epsilon, unless that is tiny itself
  if (!(squares <= FLT_MAX) || (epsilon < 1e-20f && squares < 1e-30f)) {
    wide_normalise(x, previous, width, epsilon, out, storage.wide);  // the whole block: all its threads know the sum
    return;
  }
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(width) + epsilon);
  for (int64_t d = threadIdx.x; d < width; d += kThreads) {
    out[d] = from_float<Out>((half_value(x, previous, d) - mean) * scale);
  }
}

// out [end - begin, columns]
template <typename T, typename Out, bool kVector>
__global__ void __launch_bounds__(kThreads) state_rows(
    const T* tokens, PackedBatch batch, const int32_t* tokens_per_frame, int64_t width, StateParts parts,
    int64_t columns, int64_t begin, int64_t end, Out* out) {
  __shared__ Storage storage;
  for (int64_t row = begin + blockIdx.x; row < end; row += gridDim.x) {
    const int64_t video = find_video(batch, row);
    const int64_t previous = row - frame_tokens(tokens_per_frame, video);
    const T* x = tokens + row * width;
    Out* to = out + (row - begin) * columns;
    if (parts.token) {
      normalise<T, Out, kVector>(x, nullptr, width, parts.epsilon, to, storage);
      to += width;
    }
    if (parts.residual) {
      if (previous < video_range(batch, video).begin) {
        for (int64_t d = threadIdx.x; d < width; d += kThreads) to[d] = from_float<Out>(0.0f);
      } else {
        normalise<T, Out, kVector>(x, tokens + previous * width, width, parts.epsilon, to, storage);
      }
      to += width;
    }
    for (int64_t p = threadIdx.x; p < parts.features_width; p += kThreads) {
      to[p] = from_float<Out>(parts.features[row * parts.features_width + p]);
    }
  }
}

}  // namespace

cudaError_t policy_state(
    const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType out_dtype, void* out,
    cudaStream_t stream) {
  const int64_t columns = parts.columns(batch.width);
  if (begin >= end || columns == 0) return cudaSuccess;
  const PackedBatch packed{batch.cu_seqlens, batch.num_videos, batch.num_tokens};
  return dispatch_dtype(batch.dtype, [&](auto element) {
    using T = decltype(element);
    return dispatch_dtype(out_dtype, [&](auto out_element) {
      using Out = decltype(out_element);
      const bool vector = has_vector_rows(batch.tokens, batch.width * static_cast<int64_t>(sizeof(T)));
      auto kernel = vector ? state_rows<T, Out, true> : state_rows<T, Out, false>;
      SCORE_LAUNCH(
          kernel, grid_size(end - begin), kThreads, 0, stream, static_cast<const T*>(batch.tokens), packed,
          batch.tokens_per_frame, batch.width, parts, columns, begin, end, static_cast<Out*>(out));
      return cudaGetLastError();
    });
  });
}

}  // namespace score::cuda
