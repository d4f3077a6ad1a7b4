// thumbnails: means of cells of pictures, over frames too.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace score::cpu {
namespace {

SCORE_INLINE float to_float(uint8_t value) { return static_cast<float>(value); }
using cpu::to_float;

// sums [width] += a row of pixels.
template <typename T>
SCORE_CLONES void add_row(const T* row, int64_t width, int64_t stride, float* sums) {
  if (stride == 1) {
#pragma omp simd
    for (int64_t x = 0; x < width; ++x) sums[x] += to_float(row[x]);
  } else {
    for (int64_t x = 0; x < width; ++x) sums[x] += to_float(row[x * stride]);
  }
}

// One channel of one picture, of pixels at `plane`, to out [rows, columns]. sums [width] is scratch.
template <typename T>
void reduce_plane(const PixelBatch& batch, const T* plane, float* sums, float* out) {
  const int64_t frames = batch.sizes[2], height = batch.sizes[3], width = batch.sizes[4];
  for (int64_t r = 0; r < batch.rows; ++r) {
    const int64_t top = r * height / batch.rows, bottom = ((r + 1) * height + batch.rows - 1) / batch.rows;
    std::fill_n(sums, width, 0.0f);
    for (int64_t f = 0; f < frames; ++f) {
      for (int64_t y = top; y < bottom; ++y) {
        add_row(plane + f * batch.strides[2] + y * batch.strides[3], width, batch.strides[4], sums);
      }
    }
    for (int64_t c = 0; c < batch.columns; ++c) {
      const int64_t left = c * width / batch.columns, right = ((c + 1) * width + batch.columns - 1) / batch.columns;
      float sum = 0.0f;
      for (int64_t x = left; x < right; ++x) sum += sums[x];
      out[r * batch.columns + c] = sum / static_cast<float>(frames * (bottom - top) * (right - left));
    }
  }
}

template <typename T>
void reduce(const PixelBatch& batch, float* out) {
  const T* pixels = static_cast<const T*>(batch.pixels);
  const int64_t channels = batch.sizes[1], cells = batch.rows * batch.columns;
  const int64_t work = batch.sizes[2] * batch.sizes[3] * batch.sizes[4] + cells;
  parallel_for(batch.num_planes(), std::max<int64_t>(1, (int64_t{64} << 10) / work), [&](int64_t begin, int64_t end) {
    std::vector<float> sums(static_cast<size_t>(batch.sizes[4]));
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t at = plane / channels * batch.strides[0] + plane % channels * batch.strides[1];
      reduce_plane(batch, pixels + at, sums.data(), out + plane * cells);
    }
  });
}

}  // namespace

void thumbnails(const PixelBatch& batch, float* out) {
  switch (batch.type) {
    case PixelType::kUInt8:
      return reduce<uint8_t>(batch, out);
    case PixelType::kFloat32:
      return reduce<float>(batch, out);
    case PixelType::kFloat16:
      return reduce<Float16>(batch, out);
    case PixelType::kBFloat16:
      return reduce<BFloat16>(batch, out);
  }
}

}  // namespace score::cpu
