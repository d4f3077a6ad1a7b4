// Rows of tokens as divprune.cpp multiplies them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "score/cosines.h"
#include "score/sums.h"
#include "simd.h"

namespace score::cpu {

// Eight floats, whatever the registers of the machine.
typedef float EightSums __attribute__((vector_size(32), aligned(4), may_alias));
static_assert(kSumLanes == 16, "two registers");

typedef uint16_t EightHalves __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint32_t EightWords __attribute__((vector_size(32)));

// By reference, because values of this type are passed otherwise where the machine has no such registers.
SCORE_INLINE void read_eight(const float* x, EightSums& out) { out = *reinterpret_cast<const EightSums*>(x); }
SCORE_INLINE void read_eight(const BFloat16* x, EightSums& out) {
  const EightWords words = __builtin_convertvector(*reinterpret_cast<const EightHalves*>(x), EightWords) << 16;
  std::memcpy(&out, &words, sizeof(out));
}

SCORE_INLINE float sum_lanes(const EightSums& low, const EightSums& high) {
  const EightSums eight = low + high;
  const float four[4] = {eight[0] + eight[4], eight[1] + eight[5], eight[2] + eight[6], eight[3] + eight[7]};
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// out[j] = x . rows[j], of kCount rows that are `stride` floats apart, zeros behind the last of `width` columns.
template <typename T, int kCount>
SCORE_INLINE void row_products(const T* x, int64_t width, const float* rows, int64_t stride, float* out) {
  EightSums low[kCount] = {}, high[kCount] = {};
  const auto add = [&](const T* from, int64_t d) {
    EightSums x0, x1, row0, row1;
    read_eight(from, x0);
    read_eight(from + 8, x1);
#pragma GCC unroll 4
    for (int j = 0; j < kCount; ++j) {
      read_eight(rows + j * stride + d, row0);
      read_eight(rows + j * stride + d + 8, row1);
      low[j] += x0 * row0;
      high[j] += x1 * row1;
    }
  };
  const int64_t body = width - width % kSumLanes;
  for (int64_t d = 0; d < body; d += kSumLanes) add(x + d, d);
  if (body < width) {
    T rest[kSumLanes] = {};
    std::copy(x + body, x + width, rest);
    add(rest, body);
  }
  for (int j = 0; j < kCount; ++j) out[j] = sum_lanes(low[j], high[j]);
}

// Kept tokens, as floats.
struct KeptRows {
  const float* rows;     // of `stride` floats, zeros behind the last column
  const float* squares;  // the sum of squares of each
  int64_t stride;
};

struct Nearest {
  float distance;
  int64_t compared;  // with the kept tokens before this one
};

// Compares x with kept tokens nearest.compared .. end, until none is left or x is nearer than `enough` to one.
template <typename T>
SCORE_INLINE Nearest
compare_row(const T* x, float square, int64_t width, const KeptRows& kept, int64_t end, float enough, Nearest nearest) {
  constexpr int kTogether = 4;
  int64_t at = nearest.compared;
  float least = nearest.distance;
  while (at < end && least >= enough) {
    float products[kTogether];
    const float* rows = kept.rows + at * kept.stride;
    const int count = end - at >= kTogether ? kTogether : 1;
    if (count == kTogether) {
      row_products<T, kTogether>(x, width, rows, kept.stride, products);
    } else {
      row_products<T, 1>(x, width, rows, kept.stride, products);
    }
    for (int j = 0; j < count; ++j) least = std::min(least, cosine_distance(products[j], square, kept.squares[at + j]));
    at += count;
  }
  return {least, at};
}

// A row whose sum of squares is no float, times the power of two that brings its largest element to 1 .. 2. A token
// with NaN or infinity counts as a zero token, and becomes one.
SCORE_INLINE void rescale_row(float* row, int64_t width) {
  float largest = 0.0f;
  bool is_finite = true;
  for (int64_t d = 0; d < width; ++d) {
    largest = std::max(largest, std::fabs(row[d]));
    is_finite = is_finite && std::fabs(row[d]) <= 3.4028234663852886e38f;
  }
  if (!is_finite || largest == 0.0f) {
    std::fill_n(row, width, 0.0f);
    return;
  }
  const double scale = std::ldexp(1.0, -std::ilogb(largest));
  for (int64_t d = 0; d < width; ++d) row[d] = static_cast<float>(static_cast<double>(row[d]) * scale);
}

struct RowSquare {
  float square;
  bool is_rescaled;
};

// x as floats in row [padded], zeros behind it, rescaled where it must be; returns its sum of squares.
template <typename T>
SCORE_INLINE RowSquare float_row(const T* x, int64_t width, int64_t padded, float* row) {
#pragma omp simd
  for (int64_t d = 0; d < width; ++d) row[d] = to_float(x[d]);
  std::fill(row + width, row + padded, 0.0f);
  float square;
  row_products<float, 1>(row, padded, row, 0, &square);
  if (sum_is_exact(square)) return {square, false};
  rescale_row(row, width);
  row_products<float, 1>(row, padded, row, 0, &square);
  return {square, square != 0.0f};
}

}  // namespace score::cpu
