// The policy's state "relative": what a token is like beside others of its video. Every kernel for it, of every device,
// goes by the numbers below; score_ext.reference.relative_state says what they are.
//
// Two steps. A token's measures are 12 cosines and the logarithm of its norm; moments are their mean and spread in each
// frame and each video. From those two a row of the state is made, when it is wanted: 43 columns would be three times
// as many bytes as the measures.
#pragma once

#include <cmath>

#include "score/transcendental.h"
#include "score/types.h"

namespace score {

// The measures, in their order. Cosines are between c = u - m, u a token's direction and m the video's mean one; plain
// ones between directions.
enum Measure : int {
  kBack1,  // to the same place 1, 2 and 4 frames back
  kBack2,
  kBack4,
  kBackBest,  // the largest of those to the 3 x 3 places around it in the frame before
  kAhead1,    // both of the frame after
  kAheadBest,
  kBack1Plain,
  kNearMean,  // of those to the 4 neighbours in the frame
  kNearBest,
  kToFrame,  // to the frame's mean
  kFramePlain,
  kVideoPlain,
  kLogNorm,  // log |x|, -inf for a zero token
  kMeasures
};
constexpr int kCosines = kLogNorm;
constexpr int kTemporalCosines = kNearMean, kAppearanceCosines = kCosines - kTemporalCosines;

// Temporal part: cosines as they are, as scores within the video, within the frame; whether there is a frame 1, 2, 4
// back and 1 ahead. Appearance part: the same of its cosines; whether there is a neighbour; scores of log |x|. Position
// part: t, y, x, each with sines and cosines of kFrequencies waves.
constexpr int kFrequencies = 3;
constexpr int kTemporalColumns = 3 * kTemporalCosines + 4;
constexpr int kAppearanceColumns = 3 * kAppearanceCosines + 1 + 2;
constexpr int kPositionColumns = 3 * (1 + 2 * kFrequencies);

constexpr float kTiny = 1e-6f;           // e: a cosine is <a, b> / sqrt((|a|^2 + e)(|b|^2 + e))
constexpr float kNone = -2.0f;           // below every cosine
constexpr double kLeastVariance = 1e-6;  // of a measure: what varies less gets scores near 0

// Tokens, and how a frame's lie in it.
struct RelativeBatch {
  TokenBatch tokens;       // relative_rows looks at neither its tokens nor their dtype and width
  const int32_t* columns;  // [num_videos], divides tokens_per_frame
  int64_t num_frames;      // of all videos together
};

// The parts of a row, in the order in which they lie in it.
struct RelativeParts {
  bool temporal, appearance, position;
  const float* features;  // [num_tokens, num_features], copied as they are
  int64_t num_features;
  SCORE_INLINE int64_t columns() const {
    return (temporal ? kTemporalColumns : 0) + (appearance ? kAppearanceColumns : 0) +
           (position ? kPositionColumns : 0) + num_features;
  }
};

// Whether a token has what a cosine of it is to.
SCORE_INLINE bool cosine_exists(int measure, int64_t frame, int64_t frames, int64_t tokens_per_frame) {
  switch (measure) {
    case kBack1:
    case kBackBest:
    case kBack1Plain:
      return frame >= 1;
    case kBack2:
      return frame >= 2;
    case kBack4:
      return frame >= 4;
    case kAhead1:
    case kAheadBest:
      return frame + 1 < frames;
    case kNearMean:
    case kNearBest:
      return tokens_per_frame > 1;
    default:
      return true;
  }
}

// asinh, to a few units in the last place: log(1 + y), y = |x| + x^2 / (1 + sqrt(1 + x^2)). For |x| < 1e18.
SCORE_INLINE float asinh_float(float x) {
  const float a = x < 0.0f ? -x : x;
  const float y = a + a * a / (1.0f + sqrtf(1.0f + a * a));
  const float small = log1p_small(y), large = log_positive(1.0f + y);
  const float value = y < 0.4f ? small : large;
  return x < 0.0f ? -value : (x == x ? value : x);
}

}  // namespace score
