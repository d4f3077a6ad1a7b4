// thumbnails: means of cells of pictures, over frames too. A thread for each cell: the cells side by side in a picture
// read the same lines of memory, which the L1 cache holds.
#include "elements.cuh"
#include "kernels.h"
#include "launch.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;

__device__ inline float to_float(uint8_t value) { return static_cast<float>(value); }
using cuda::to_float;

template <typename T>
__global__ void __launch_bounds__(kThreads) cell_means(PixelBatch batch, int64_t cells, float* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t channels = batch.sizes[1], frames = batch.sizes[2], height = batch.sizes[3], width = batch.sizes[4];
  for (int64_t cell = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; cell < cells; cell += step) {
    const int64_t c = cell % batch.columns, r = cell / batch.columns % batch.rows;
    const int64_t plane = cell / batch.columns / batch.rows;
    const int64_t top = r * height / batch.rows, bottom = ceil_div((r + 1) * height, batch.rows);
    const int64_t left = c * width / batch.columns, right = ceil_div((c + 1) * width, batch.columns);
    const T* pixels =
        static_cast<const T*>(batch.pixels) + plane / channels * batch.strides[0] + plane % channels * batch.strides[1];
    float sum = 0.0f;
    for (int64_t f = 0; f < frames; ++f) {
      for (int64_t y = top; y < bottom; ++y) {
        const T* row = pixels + f * batch.strides[2] + y * batch.strides[3];
        for (int64_t x = left; x < right; ++x) sum += to_float(row[x * batch.strides[4]]);
      }
    }
    out[cell] = sum / static_cast<float>(frames * (bottom - top) * (right - left));
  }
}

template <typename T>
cudaError_t launch(const PixelBatch& batch, float* out, cudaStream_t stream) {
  const int64_t cells = batch.num_cells();
  SCORE_LAUNCH(cell_means<T>, grid_size(ceil_div(cells, kThreads)), kThreads, 0, stream, batch, cells, out);
  return cudaGetLastError();
}

}  // namespace

cudaError_t thumbnails(const PixelBatch& batch, float* out, cudaStream_t stream) {
  if (batch.num_cells() == 0) return cudaSuccess;
  switch (batch.type) {
    case PixelType::kUInt8:
      return launch<uint8_t>(batch, out, stream);
    case PixelType::kFloat16:
      return launch<__half>(batch, out, stream);
    case PixelType::kBFloat16:
      return launch<__nv_bfloat16>(batch, out, stream);
    default:
      return launch<float>(batch, out, stream);
  }
}

}  // namespace score::cuda
