// The inner products of centred directions that the relative state is made of: the inner loop of relative_measures.cpp.
#pragma once

#include <cstdint>

#include "relative_videos.h"
#include "simd.h"

namespace score::cpu {

// Of a token's centred direction c, with: the 3 x 3 places around it in the frame before, from the upper left one; the
// same place 2 and 4 frames back; its neighbours above and to the left; itself; the frame's mean f - m; the video's m.
enum Product : int { kAround, kTwoBack = 9, kFourBack, kUp, kLeft, kSelf, kFrame, kVideo, kProducts };

// Two tokens that are neighbours in a row share what they are multiplied with, so their products are made together: a
// block of kPair sums, four to a group. kPlace[token][product] is where each of them lies in it.
constexpr int kPair = 2 * kProducts;
constexpr int8_t kPlace[2][kProducts] = {
    {0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 20, 22, 24, 26, 28, 30},
    {3, 4, 5, 9, 10, 11, 15, 16, 17, 19, 21, 23, 25, 27, 29, 31}};

// How the places of a frame lie in memory: a row's after each other, with one that is always 0 before and behind them,
// and such rows above and below. A pair's second token may be one of those.
struct Grid {
  explicit Grid(const RelativeVideo& video)
      : rows(video.rows), columns(video.columns), pairs((columns + 1) / 2), stride(2 * pairs + 1) {}
  int64_t place(int64_t down, int64_t right) const { return (down + 1) * stride + right + 1; }
  int64_t places() const { return (rows + 2) * stride + 2; }
  int64_t rows, columns, pairs, stride;
};

// Eight floats, whatever the registers of the machine.
typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
constexpr int kEight = 8;

// out[k] += the sum of a[k], for four at a time.
SCORE_INLINE void add_sums(const Eight* a, float* out) {
#if defined(__x86_64__)
  const Eight ab = __builtin_shufflevector(a[0], a[1], 0, 2, 8, 10, 4, 6, 12, 14) +
                   __builtin_shufflevector(a[0], a[1], 1, 3, 9, 11, 5, 7, 13, 15);
  const Eight cd = __builtin_shufflevector(a[2], a[3], 0, 2, 8, 10, 4, 6, 12, 14) +
                   __builtin_shufflevector(a[2], a[3], 1, 3, 9, 11, 5, 7, 13, 15);
  const Eight sums = __builtin_shufflevector(ab, cd, 0, 2, 8, 10, 4, 6, 12, 14) +
                     __builtin_shufflevector(ab, cd, 1, 3, 9, 11, 5, 7, 13, 15);
  *reinterpret_cast<Four*>(out) +=
      __builtin_shufflevector(sums, sums, 0, 1, 2, 3) + __builtin_shufflevector(sums, sums, 4, 5, 6, 7);
#else
  for (int k = 0; k < 4; ++k) {
    const Four half = __builtin_shufflevector(a[k], a[k], 0, 1, 2, 3) + __builtin_shufflevector(a[k], a[k], 4, 5, 6, 7);
    out[k] += (half[0] + half[1]) + (half[2] + half[3]);
  }
#endif
}

// Where the slices that one pair of tokens is multiplied with begin: rows of `stride` floats, place after place.
struct PairOperands {
  const float* own;        // of the first token; the second one and the one to the left lie beside it
  const float* above;      // of the first token's upper neighbour
  const float* before[3];  // in the frame before: of the places left of the first token, above it, beside it, below it
  const float* two_back;   // of the first token, 2 and 4 frames back
  const float* four_back;
  const float* frame;  // f - m
  const float* video;  // m
};

// Adds to out [kPair] the products of a slice of `width` columns, a multiple of kEight; stride from place to place.
// What the tokens do not have may be anything finite, and so may its products.
template <bool kBefore>
SCORE_INLINE void add_products(const PairOperands& pair, int64_t stride, int64_t width, float* out) {
  const auto at = [](const float* from) -> const Eight& { return *reinterpret_cast<const Eight*>(from); };
  const float *own0 = pair.own, *own1 = pair.own + stride;
  if (kBefore) {
    Eight a[12] = {};
    for (int64_t d = 0; d < width; d += kEight) {
      const Eight c0 = at(own0 + d), c1 = at(own1 + d);
#pragma GCC unroll 2
      for (int row = 0; row < 2; ++row) {
        const float* p = pair.before[row] + d;
        Eight q = at(p);
        a[6 * row] += c0 * q;
        q = at(p + stride);
        a[6 * row + 1] += c0 * q;
        a[6 * row + 3] += c1 * q;
        q = at(p + 2 * stride);
        a[6 * row + 2] += c0 * q;
        a[6 * row + 4] += c1 * q;
        q = at(p + 3 * stride);
        a[6 * row + 5] += c1 * q;
      }
    }
    for (int group = 0; group < 3; ++group) add_sums(a + 4 * group, out + 4 * group);
  }
  {
    Eight a[12] = {};
    for (int64_t d = 0; d < width; d += kEight) {
      const Eight c0 = at(own0 + d), c1 = at(own1 + d);
      if (kBefore) {
        const float* p = pair.before[2] + d;
        Eight q = at(p);
        a[0] += c0 * q;
        q = at(p + stride);
        a[1] += c0 * q;
        a[3] += c1 * q;
        q = at(p + 2 * stride);
        a[2] += c0 * q;
        a[4] += c1 * q;
        q = at(p + 3 * stride);
        a[5] += c1 * q;
        a[6] += c0 * at(pair.two_back + d);
        a[7] += c1 * at(pair.two_back + stride + d);
        a[8] += c0 * at(pair.four_back + d);
        a[9] += c1 * at(pair.four_back + stride + d);
      }
      a[10] += c0 * at(pair.above + d);
      a[11] += c1 * at(pair.above + stride + d);
    }
    for (int group = kBefore ? 0 : 2; group < 3; ++group) add_sums(a + 4 * group, out + 12 + 4 * group);
  }
  Eight a[8] = {};
  for (int64_t d = 0; d < width; d += kEight) {
    const Eight c0 = at(own0 + d), c1 = at(own1 + d);
    a[0] += c0 * at(own0 - stride + d);
    a[1] += c0 * c1;
    a[2] += c0 * c0;
    a[3] += c1 * c1;
    const Eight frame = at(pair.frame + d), video = at(pair.video + d);
    a[4] += c0 * frame;
    a[5] += c1 * frame;
    a[6] += c0 * video;
    a[7] += c1 * video;
  }
  for (int group = 0; group < 2; ++group) add_sums(a + 4 * group, out + 24 + 4 * group);
}

}  // namespace score::cpu
