// Norms of tokens and sums of their directions: the first pass of relative_measures.cpp.
#pragma once

#include <algorithm>
#include <cmath>

#include "score/relative.h"
#include "score/sums.h"
#include "simd.h"

namespace score::cpu {

constexpr int kLanes = 32;
constexpr int64_t kTogether = 4;  // of them at a time

template <typename T>
SCORE_INLINE float square_sum(const T* x, int64_t width) {
  float lanes[kLanes] = {};
  const int64_t body = width - width % kLanes;
  for (int64_t i = 0; i < body; i += kLanes) {
#pragma omp simd
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += to_float(x[i + lane]) * to_float(x[i + lane]);
  }
  for (int64_t i = body; i < width; ++i) lanes[i - body] += to_float(x[i]) * to_float(x[i]);
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// |x|, in double where its square, or squares in it, are no floats.
template <typename T>
SCORE_INLINE double row_norm(const T* x, int64_t width) {
  const float squares = square_sum(x, width);
  if (sum_is_exact(squares)) return std::sqrt(static_cast<double>(squares));
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(to_float(x[i])) * static_cast<double>(to_float(x[i]));
  return std::sqrt(sum);
}

// Whether x / |x| can be had by a product in float32; inverse is 1 / |x|, 0 for a zero token.
SCORE_INLINE bool is_plain(double inverse) { return inverse >= 0x1p-63 && inverse <= 0x1p50; }

template <typename T>
SCORE_INLINE float wide_unit(T x, double inverse) {
  return static_cast<float>(static_cast<double>(to_float(x)) * inverse);
}

// sum[i] += the direction of each of `count` rows, at most kTogether.
template <typename T>
SCORE_INLINE void add_directions(const T* x, int64_t width, int64_t count, const double* inverse, float* sum) {
  const auto plain = [&](int64_t row) { return is_plain(inverse[row]); };
  if (count == kTogether && plain(0) && plain(1) && plain(2) && plain(3)) {
    const float s0 = static_cast<float>(inverse[0]), s1 = static_cast<float>(inverse[1]);
    const float s2 = static_cast<float>(inverse[2]), s3 = static_cast<float>(inverse[3]);
    const T *x1 = x + width, *x2 = x1 + width, *x3 = x2 + width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      sum[i] += (to_float(x[i]) * s0 + to_float(x1[i]) * s1) + (to_float(x2[i]) * s2 + to_float(x3[i]) * s3);
    }
    return;
  }
  for (int64_t row = 0; row < count; ++row, x += width) {
    for (int64_t i = 0; i < width; ++i) sum[i] += wide_unit(x[i], inverse[row]);
  }
}

// Norms of rows begin .. end, and the sum of their directions, [width].
template <typename T>
SCORE_INLINE void run_directions(
    const T* tokens, int64_t width, int64_t begin, int64_t end, double* inverse, float* measures, float* sum) {
  std::fill_n(sum, width, 0.0f);
  for (int64_t first = begin; first < end; first += kTogether) {
    const int64_t last = std::min(first + kTogether, end);
    for (int64_t row = first; row < last; ++row) {
      const double norm = row_norm(tokens + row * width, width);
      inverse[row] = norm == 0.0 ? 0.0 : 1.0 / norm;
      measures[row * kMeasures + kLogNorm] = static_cast<float>(std::log(norm));
    }
    add_directions(tokens + first * width, width, last - first, inverse + first, sum);
  }
}

}  // namespace score::cpu
