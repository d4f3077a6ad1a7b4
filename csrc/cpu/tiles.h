// Products of rows with a weight in panels (panels.h), tile by tile: what of them stays in registers.
#pragma once

#include <cstdint>

#include "panels.h"
#include "simd.h"

namespace score::cpu {

constexpr int kTileRows = 6;  // of 2 registers each: 12 sums, as many as 16 registers allow

// out [kTileRows, 2 registers] += x [kTileRows, inputs] weights [inputs, 2 registers]
template <int kLanes>
SCORE_INLINE void multiply_tile(
    const float* x, int64_t x_stride, const float* weights, int64_t inputs, float* out, int64_t out_stride) {
  typedef float Register __attribute__((vector_size(kLanes * sizeof(float))));
  typedef float Unaligned __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
  Register sums[kTileRows][2];
#pragma GCC unroll 6
  for (int row = 0; row < kTileRows; ++row) {
    sums[row][0] = *reinterpret_cast<const Unaligned*>(out + row * out_stride);
    sums[row][1] = *reinterpret_cast<const Unaligned*>(out + row * out_stride + kLanes);
  }
  for (int64_t i = 0; i < inputs; ++i) {
    const Register first = *reinterpret_cast<const Unaligned*>(weights + i * 2 * kLanes);
    const Register second = *reinterpret_cast<const Unaligned*>(weights + i * 2 * kLanes + kLanes);
#pragma GCC unroll 6
    for (int row = 0; row < kTileRows; ++row) {
      sums[row][0] += x[row * x_stride + i] * first;
      sums[row][1] += x[row * x_stride + i] * second;
    }
  }
#pragma GCC unroll 6
  for (int row = 0; row < kTileRows; ++row) {
    *reinterpret_cast<Unaligned*>(out + row * out_stride) = sums[row][0];
    *reinterpret_cast<Unaligned*>(out + row * out_stride + kLanes) = sums[row][1];
  }
}

// out [rows, outputs] += x [rows, inputs] W^T, for `inputs` of the weight's inputs from first_input on. Rows up to the
// next multiple of kTileRows are there, and mean nothing. Before each of the multiply_tiles(rows, weight) tiles,
// before_tile() is called.
template <int kLanes, typename BeforeTile>
SCORE_INLINE void multiply(
    const float* x, int64_t x_stride, int64_t rows, const Panels& weight, int64_t first_input, int64_t inputs,
    float* out, const BeforeTile& before_tile) {
  const int64_t width = weight.width();
  for (int64_t first = 0; first < width; first += 2 * kLanes) {
    for (int64_t row = 0; row < rows; row += kTileRows) {
      before_tile();
      multiply_tile<kLanes>(
          x + row * x_stride, x_stride, weight.at(first, first_input), inputs, out + row * width + first, width);
    }
  }
}

template <int kLanes>
SCORE_INLINE void multiply(
    const float* x, int64_t x_stride, int64_t rows, const Panels& weight, int64_t first_input, int64_t inputs,
    float* out) {
  multiply<kLanes>(x, x_stride, rows, weight, first_input, inputs, out, [] {});
}

inline int64_t multiply_tiles(int64_t rows, const Panels& weight) {
  return padded(rows, kTileRows) / kTileRows * (weight.width() / weight.panel);
}

}  // namespace score::cpu
