// Mean and spread of the measures, in frames and in videos.
#pragma once

#include <algorithm>
#include <cmath>

#include "score/relative.h"
#include "simd.h"

namespace score::cpu {

// How many values there are, their mean, and the sum of squares around it.
struct Group {
  double count = 0.0, mean = 0.0, squares = 0.0;
  void write(double* moments) const {
    moments[0] = mean;
    moments[1] = 1.0 / std::sqrt(squares / std::max(count, 1.0) + kLeastVariance);
  }
};

// Of every measure over rows [rows, kMeasures]; of log-norms those that are numbers.
SCORE_INLINE void groups_of_rows(const float* measures, int64_t rows, Group* out) {
  double sums[kMeasures] = {}, means[kMeasures], squares[kMeasures] = {};
  int64_t zeros = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = measures + i * kMeasures;
    for (int m = 0; m < kCosines; ++m) sums[m] += row[m];
    const bool zero = row[kLogNorm] == -INFINITY;
    sums[kLogNorm] += zero ? 0.0 : row[kLogNorm];
    zeros += zero;
  }
  const double count = static_cast<double>(rows), numbers = static_cast<double>(rows - zeros);
  for (int m = 0; m < kCosines; ++m) means[m] = sums[m] / count;
  means[kLogNorm] = sums[kLogNorm] / std::max(numbers, 1.0);
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = measures + i * kMeasures;
    for (int m = 0; m < kCosines; ++m) squares[m] += (row[m] - means[m]) * (row[m] - means[m]);
    const double deviation = row[kLogNorm] == -INFINITY ? 0.0 : row[kLogNorm] - means[kLogNorm];
    squares[kLogNorm] += deviation * deviation;
  }
  for (int m = 0; m < kMeasures; ++m) out[m] = {m == kLogNorm ? numbers : count, means[m], squares[m]};
}

// Of all frames' values together. first [frames, kMeasures].
inline Group video_group(const Group* first, int64_t frames, int measure) {
  Group group;
  double sum = 0.0;
  for (int64_t t = 0; t < frames; ++t) {
    const Group& part = first[t * kMeasures + measure];
    group.count += part.count;
    sum += part.count * part.mean;
  }
  group.mean = sum / std::max(group.count, 1.0);
  for (int64_t t = 0; t < frames; ++t) {
    const Group& part = first[t * kMeasures + measure];
    const double deviation = part.mean - group.mean;
    group.squares += part.squares + part.count * deviation * deviation;
  }
  return group;
}

}  // namespace score::cpu
