// From inner products to cosines: what relative_measures.cpp makes of one frame once its products are there.
#pragma once

#include <algorithm>
#include <cmath>

#include "relative_products.h"
#include "relative_videos.h"
#include "score/relative.h"

namespace score::cpu {

// The larger, NaN if either is.
SCORE_INLINE float larger(float a, float b) { return b > a || b != b ? b : a; }

// What finish_frame needs to know of a video.
struct Finish {
  const RelativeVideo& video;
  const float* products;      // blocks of the video's pairs
  const float* inverse_root;  // 1 / sqrt(|c|^2 + e) of the video's tokens
  const float* frame_sums;    // [T, 2] of the video
  float squared_mean;         // |m|^2
};

// The cosines of one frame's tokens, out [N, kMeasures], from the products of it and of the frame after.
inline void finish_frame(const Finish& of, int64_t frame, float* out) {
  const RelativeVideo& video = of.video;
  const Grid grid(video);
  const int64_t n = video.per_frame, rows = grid.rows, columns = grid.columns;
  const auto product = [&](int64_t number, int64_t down, int64_t right, int which) {
    const float* block = of.products + ((number * rows + down) * grid.pairs + right / 2) * kPair;
    return block[kPlace[right % 2][which]];
  };
  const float to_mean = of.frame_sums[2 * frame], along_mean = of.frame_sums[2 * frame + 1];
  const float frame_root = std::sqrt(to_mean + kTiny);
  const float frame_square = std::max(to_mean + 2.0f * along_mean + of.squared_mean, 0.0f);  // |f|^2
  const float frame_plain_root = std::sqrt(frame_square + kTiny), video_root = std::sqrt(of.squared_mean + kTiny);
  const float* roots = of.inverse_root + frame * n;
  for (int64_t down = 0; down < rows; ++down) {
    for (int64_t right = 0; right < columns; ++right, out += kMeasures) {
      const int64_t i = down * columns + right;
      const float root = roots[i];
      const auto own = [&](int which) { return product(frame, down, right, which); };
      const float along = own(kVideo) + of.squared_mean;  // <u, m>
      std::fill_n(out, kCosines, 0.0f);
      const auto inside = [&](int64_t y, int64_t x) { return y >= 0 && y < rows && x >= 0 && x < columns; };
      if (frame >= 1) {
        out[kBack1] = own(kAround + 4) * (root * roots[i - n]);
        out[kBack1Plain] = own(kAround + 4) + along + product(frame - 1, down, right, kVideo);
        float best = kNone;
        for (int k = 0; k < 9; ++k) {
          const int64_t y = k / 3 - 1, x = k % 3 - 1;
          if (!inside(down + y, right + x)) continue;
          best = larger(best, own(kAround + k) * (root * roots[i - n + y * columns + x]));
        }
        out[kBackBest] = best;
      }
      if (frame >= 2) out[kBack2] = own(kTwoBack) * (root * roots[i - 2 * n]);
      if (frame >= 4) out[kBack4] = own(kFourBack) * (root * roots[i - 4 * n]);
      if (frame + 1 < video.frames) {
        out[kAhead1] = product(frame + 1, down, right, kAround + 4) * (root * roots[i + n]);
        float best = kNone;
        for (int k = 0; k < 9; ++k) {  // the token there sees this one the other way round
          const int64_t y = 1 - k / 3, x = 1 - k % 3;
          if (!inside(down + y, right + x)) continue;
          const float there = product(frame + 1, down + y, right + x, kAround + k);
          best = larger(best, there * (root * roots[i + n + y * columns + x]));
        }
        out[kAheadBest] = best;
      }
      if (n > 1) {
        float best = kNone, sum = 0.0f, count = 0.0f;
        const auto see = [&](int64_t neighbour, float value) {
          const float cosine = value * (root * roots[neighbour]);
          best = larger(best, cosine);
          sum += cosine;
          count += 1.0f;
        };
        if (down > 0) see(i - columns, own(kUp));
        if (right > 0) see(i - 1, own(kLeft));
        if (down + 1 < rows) see(i + columns, product(frame, down + 1, right, kUp));
        if (right + 1 < columns) see(i + 1, product(frame, down, right + 1, kLeft));
        out[kNearMean] = sum / count;
        out[kNearBest] = best;
      }
      out[kToFrame] = own(kFrame) * root / frame_root;
      out[kFramePlain] = (own(kFrame) + own(kVideo) + along_mean + of.squared_mean) / frame_plain_root;
      out[kVideoPlain] = along / video_root;
    }
  }
}

// 1 / sqrt(|c|^2 + e) of one frame's tokens, [N], from the blocks of its pairs.
inline void inverse_roots(const float* products, const Grid& grid, float* out) {
  for (int64_t down = 0; down < grid.rows; ++down) {
    for (int64_t right = 0; right < grid.columns; ++right) {
      const float* block = products + (down * grid.pairs + right / 2) * kPair;
      *out++ = 1.0f / std::sqrt(block[kPlace[right % 2][kSelf]] + kTiny);
    }
  }
}

}  // namespace score::cpu
