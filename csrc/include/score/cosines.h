// Cosines that have the same bits on every device and processor: what divprune compares.
//
// A row's sums run in kSumLanes float32 sums: column d adds to sum d % kSumLanes, in rising order, one rounded product
// and one rounded addition each; then the upper half of the sums is added to the lower one until one is left. So a
// product of equal rows is the row's own sum of squares, and their distance is exactly 0.
#pragma once

#include <cmath>

#include "score/ordering.h"
#include "score/rounding.h"

namespace score {

constexpr int kSumLanes = 16;
constexpr int64_t kMeanRows = 64;  // directions are summed in float32 over so many rows, then in float64

// 1 - cosine of two rows, from their product and their sums of squares; never below 0. A zero row has cosine 0 with
// every row. In double the product of the squares neither overflows nor underflows, and the root of a square is exact.
SCORE_INLINE float cosine_distance(float product, float square, float other_square) {
  const double squares = mul_rn(static_cast<double>(square), static_cast<double>(other_square));
  if (squares == 0.0) return 1.0f;
  const double cosine = div_rn(static_cast<double>(product), std::sqrt(squares));
  const float distance = static_cast<float>(sub_rn(1.0, cosine));
  return distance < 0.0f ? 0.0f : distance;
}

// What a row is multiplied by to become its direction; 0 for a zero row.
SCORE_INLINE float direction_scale(float square) {
  return square == 0.0f ? 0.0f : static_cast<float>(div_rn(1.0, std::sqrt(static_cast<double>(square))));
}

// How far a row points away from the mean of all directions: minus its cosine with it, times what is the same for all.
SCORE_INLINE float distance_from_mean(float product, float square) {
  if (square == 0.0f) return 0.0f;
  return static_cast<float>(-div_rn(static_cast<double>(product), std::sqrt(static_cast<double>(square))));
}

constexpr float kMostWeight = 1e30f;  // times a distance, at most 2, it is still a float

constexpr float kLeastScore = 1.17549435e-38f;  // 2^-126: below it rounding is no longer relative

// What a distance counts times its row's weight; 0 below kLeastScore. A weight that is negative or NaN counts as 0.
SCORE_INLINE float weighted(float distance, float weight) {
  if (!(weight > 0.0f)) return 0.0f;
  const float score = mul_rn(distance, weight < kMostWeight ? weight : kMostWeight);
  return score < kLeastScore ? 0.0f : score;
}

// Rows as integers whose order is that in which they are taken: the larger distance first, then the lower row.
SCORE_INLINE uint64_t distance_key(float distance, uint32_t row) {
  return static_cast<uint64_t>(rank_bits(distance)) << 32 | (0xFFFFFFFFu - row);
}
SCORE_INLINE uint32_t row_of_key(uint64_t key) { return 0xFFFFFFFFu - static_cast<uint32_t>(key); }

}  // namespace score
