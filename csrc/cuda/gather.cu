// gather: rows of a tensor, by number, to the front of another.
#include "kernels.h"
#include "launch.cuh"

namespace score::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLoads = 4;  // per thread on their way at once
constexpr unsigned kMaxGridY = 65535;

// threadIdx.y and blockIdx.x count rows; threadIdx.x and blockIdx.y share a row of row_units between them.
template <typename Unit>
__global__ void __launch_bounds__(kThreads) gather_rows(
    const Unit* tokens, int64_t num_tokens, int64_t row_units, const int64_t* index, int64_t num_rows, Unit* out) {
  const int64_t row_step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  const int64_t unit_step = static_cast<int64_t>(gridDim.y) * blockDim.x * kLoads;
  const int64_t first_unit = static_cast<int64_t>(blockIdx.y) * blockDim.x * kLoads + threadIdx.x;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; row < num_rows; row += row_step) {
    const int64_t source = __ldg(index + row);
    const bool exists = source >= 0 && source < num_tokens;
    const Unit* from = tokens + (exists ? source : 0) * row_units;
    Unit* to = out + row * row_units;
    for (int64_t unit = first_unit; unit < row_units; unit += unit_step) {
      Unit held[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int64_t at = unit + static_cast<int64_t>(i) * blockDim.x;
        held[i] = exists && at < row_units ? __ldg(from + at) : Unit{};
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int64_t at = unit + static_cast<int64_t>(i) * blockDim.x;
        if (at < row_units) to[at] = held[i];
      }
    }
  }
}

template <typename Unit>
cudaError_t launch(
    const void* tokens, int64_t num_tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out,
    cudaStream_t stream) {
  const int64_t row_units = row_bytes / static_cast<int64_t>(sizeof(Unit));
  // No more threads side by side than a row has loads for; the others take further rows.
  unsigned across = 1;
  while (across < kThreads && across * kLoads < row_units) across *= 2;
  const dim3 block(across, kThreads / across);
  const int64_t columns = ceil_div(row_units, static_cast<int64_t>(across) * kLoads);
  const dim3 grid(grid_size(ceil_div(num_rows, block.y)), static_cast<unsigned>(std::min<int64_t>(columns, kMaxGridY)));
  SCORE_LAUNCH(
      gather_rows<Unit>, grid, block, 0, stream, static_cast<const Unit*>(tokens), num_tokens, row_units, index,
      num_rows, static_cast<Unit*>(out));
  return cudaGetLastError();
}

}  // namespace

cudaError_t gather(
    const void* tokens, int64_t num_tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out,
    cudaStream_t stream) {
  if (num_rows == 0 || row_bytes == 0) return cudaSuccess;
  // The widest unit that rows and pointers are multiples of.
  const uintptr_t bits =
      reinterpret_cast<uintptr_t>(tokens) | reinterpret_cast<uintptr_t>(out) | static_cast<uintptr_t>(row_bytes);
  if (bits % 16 == 0) return launch<uint4>(tokens, num_tokens, row_bytes, index, num_rows, out, stream);
  if (bits % 8 == 0) return launch<uint2>(tokens, num_tokens, row_bytes, index, num_rows, out, stream);
  if (bits % 4 == 0) return launch<uint32_t>(tokens, num_tokens, row_bytes, index, num_rows, out, stream);
  if (bits % 2 == 0) return launch<uint16_t>(tokens, num_tokens, row_bytes, index, num_rows, out, stream);
  return launch<uint8_t>(tokens, num_tokens, row_bytes, index, num_rows, out, stream);
}

}  // namespace score::cuda
