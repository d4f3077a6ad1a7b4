// count_sketch: every W-th column of a row added up, with signs, in the CPU's order. A thread has one column of the
// result and some rows, so that a sign is drawn once for all of them, and a warp reads columns side by side.
#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"
#include "score/column_sign.h"

namespace score::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 8;  // of a thread

template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_columns(const T* tokens, int64_t rows, int64_t token_width, int64_t width, int64_t items, float* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; item < items; item += step) {
    const int64_t column = item % width, first = item / width * kRows;
    const T* from = tokens + first * token_width;
    float sums[kRows] = {};
    for (int64_t at = column; at < token_width; at += width) {
      const float sign = column_sign(at);
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (first + row < rows) sums[row] = add_rn(sums[row], mul_rn(sign, to_float(from[row * token_width + at])));
      }
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (first + row < rows) out[(first + row) * width + column] = sums[row];
    }
  }
}

}  // namespace

cudaError_t count_sketch(const TokenMatrix& tokens, int64_t width, float* out, cudaStream_t stream) {
  const int64_t items = ceil_div(tokens.rows, kRows) * width;
  if (items == 0) return cudaSuccess;
  return dispatch_dtype(tokens.dtype, [&](auto element) {
    using T = decltype(element);
    SCORE_LAUNCH(
        add_columns<T>, grid_size(ceil_div(items, kThreads)), kThreads, 0, stream, static_cast<const T*>(tokens.data),
        tokens.rows, tokens.width, width, items, out);
    return cudaGetLastError();
  });
}

}  // namespace score::cuda
