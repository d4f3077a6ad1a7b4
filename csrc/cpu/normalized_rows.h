// Slices of rows z as the tiles of policy_logits.cpp multiply them, and the sums that LayerNorm takes of whole rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "simd.h"

namespace score::cpu {

// What is known of a row's z, one for each half.
struct RowSums {
  float shift;          // m
  double sum, squares;  // of x - m
};

// Sum of a register's lanes, in a fixed order.
template <int kLanes, typename Register>
SCORE_INLINE float lanes_sum(const Register& values) {
  float sum = 0.0f;
  for (int lane = 0; lane < kLanes; ++lane) sum += values[lane];
  return sum;
}

// Takes `shift` from a tile's row, and adds up what is left. Four registers of each sum: one would wait for itself.
template <int kLanes>
SCORE_INLINE void add_sums(int64_t columns, RowSums& sums, float* tile) {
  typedef float Register __attribute__((vector_size(kLanes * sizeof(float))));
  typedef float Unaligned __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
  constexpr int kRegisters = 4;
  Register totals[kRegisters] = {}, squares[kRegisters] = {};
  int64_t i = 0;
  for (; i + kRegisters * kLanes <= columns; i += kRegisters * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kRegisters; ++j) {
      Unaligned& at = *reinterpret_cast<Unaligned*>(tile + i + j * kLanes);
      const Register value = at - sums.shift;
      at = value;
      totals[j] += value;
      squares[j] += value * value;
    }
  }
  float sum = lanes_sum<kLanes>((totals[0] + totals[1]) + (totals[2] + totals[3]));
  float square = lanes_sum<kLanes>((squares[0] + squares[1]) + (squares[2] + squares[3]));
  for (; i < columns; ++i) {
    const float value = tile[i] - sums.shift;
    tile[i] = value;
    sum += value;
    square += value * value;
  }
  sums.sum += static_cast<double>(sum);
  sums.squares += static_cast<double>(square);
}

// z of columns begin .. end of a row into tile, and their sums. previous is null for the token's half.
template <int kLanes, typename In>
SCORE_INLINE void fill_tile(const In* x, const In* previous, int64_t begin, int64_t end, RowSums& sums, float* tile) {
  const int64_t columns = end - begin;
  if (previous == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) tile[i] = to_float(x[begin + i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) tile[i] = to_float(x[begin + i]) - to_float(previous[begin + i]);
  }
  if (begin == 0) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < columns; ++i) sum += tile[i];
    sums = {sum / static_cast<float>(columns), 0.0, 0.0};
  }
  add_sums<kLanes>(columns, sums, tile);
}

// Scale of the LayerNorm and mean of z; false where the squares are no floats, or underflow beside a tiny epsilon.
SCORE_INLINE bool finish_sums(const RowSums& sums, int64_t width, float epsilon, float& mean, float& scale) {
  const double count = static_cast<double>(width), average = sums.sum / count;
  const double squares = std::max(sums.squares - sums.sum * average, 0.0);
  mean = static_cast<float>(average);
  scale = static_cast<float>(1.0 / std::sqrt(squares / count + static_cast<double>(epsilon)));
  const bool is_float = sums.squares <= static_cast<double>(std::numeric_limits<float>::max());  // false for NaN
  return is_float && !(epsilon < 1e-20f && squares < 1e-30);
}

}  // namespace score::cpu
