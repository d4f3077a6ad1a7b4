// surprise: how much each token differs from the one at its place in the frame before.
//
// One pass over the tokens. A work item is a block of neighbouring places, small enough for the cache, followed
// through a run of frames: each row is fetched from memory once, and is still cached when the next frame needs it.
// A core that reads one row after another waits for memory: its prefetchers run only so far ahead in each stream. So
// the rows of a few frames are read side by side; all but the last also serve as the next one's frame before.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "score/sums.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr int64_t kBlockBytes = 256 << 10;  // rows of one frame that a work item follows
constexpr int64_t kRunFrames = 64;          // longer videos are cut, at the price of reading one frame again
constexpr int kTogether = 4;                // frames whose rows are read side by side
constexpr int64_t kPieceBytes = 512;        // of each of them, which the parts of the lanes read in turn
constexpr int kLanes = 32;                  // independent sums of a row
constexpr int kPart = 8;                    // of them, so few that those of kTogether rows fit AVX2's registers

struct Sums {
  float product;  // x . p for cosine, |x - p|^2 for l2
  float square;   // |x|^2 for cosine; for l2 the sum of |x - p|, which tells no difference from one whose square is 0
};

// Every sum runs in the same order, so that x == p makes product, |x|^2 and |p|^2 equal to the last bit and the
// surprise exactly 0: what does not move is tied, whatever the rounding.
// One lane's share of both sums.
template <bool kCosineMetric>
SCORE_INLINE void accumulate(float a, float b, float& product, float& square) {
  const float difference = a - b;
  product += kCosineMetric ? a * b : difference * difference;
  square += kCosineMetric ? a * a : std::fabs(difference);
}

// The elements of a group of kLanes that one part of the lanes adds up: lane l of part k is that of element k * kPart +
// l but for bfloat16, which is read in pairs. Of a word, the upper half is a float as it stands and the lower one after
// a shift, which spares the widening of every element: the lower halves are the first half of the lanes.
template <bool kCosineMetric, typename T>
SCORE_INLINE void accumulate_part(const T* x, const T* p, int part, float* product, float* square) {
#pragma omp simd
  for (int lane = 0; lane < kPart; ++lane) {
    const int i = part * kPart + lane;
    accumulate<kCosineMetric>(to_float(x[i]), to_float(p[i]), product[lane], square[lane]);
  }
}
template <bool kCosineMetric>
SCORE_INLINE void accumulate_part(const BFloat16* x, const BFloat16* p, int part, float* product, float* square) {
  constexpr int kParts = kLanes / kPart;
  const bool lower = part < kParts / 2;
#pragma omp simd
  for (int lane = 0; lane < kPart; ++lane) {
    const int i = 2 * (part % (kParts / 2) * kPart + lane);
    uint32_t a, b;
    std::memcpy(&a, x + i, sizeof(a));
    std::memcpy(&b, p + i, sizeof(b));
    a = lower ? a << 16 : a & 0xFFFF0000u;
    b = lower ? b << 16 : b & 0xFFFF0000u;
    accumulate<kCosineMetric>(bits_float(a), bits_float(b), product[lane], square[lane]);
  }
}

SCORE_INLINE float sum_lanes(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// The lanes' sums of one part, of `count` elements of kRows rows against the rows before them.
template <bool kCosineMetric, int kRows, typename T>
SCORE_INLINE void add_piece(
    const T* first, int64_t stride, int64_t count, int part, float (*product)[kLanes], float (*square)[kLanes]) {
  for (int64_t i = 0; i < count; i += kLanes) {
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
      const T* x = first + row * stride + i;
      accumulate_part<kCosineMetric>(x, x - stride, part, product[row] + part * kPart, square[row] + part * kPart);
    }
  }
}

// Of rows first, first + stride, ... the sums of each with the row `stride` before it, or with itself if that is 0.
template <bool kCosineMetric, int kRows, typename T>
SCORE_INLINE void sum_rows(const T* first, int64_t stride, int64_t width, Sums* sums) {
  constexpr int kParts = kLanes / kPart;
  constexpr int64_t kPiece = kPieceBytes / sizeof(T);
  float product[kRows][kLanes] = {}, square[kRows][kLanes] = {};
  const int64_t body = width - width % kLanes;
  for (int64_t i = 0; i < body; i += kPiece) {
    const int64_t count = std::min(kPiece, body - i);
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      add_piece<kCosineMetric, kRows>(first + i, stride, count, part, product, square);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    const T* x = first + row * stride;
    for (int64_t i = body; i < width; ++i) {
      accumulate<kCosineMetric>(
          to_float(x[i]), to_float((x - stride)[i]), product[row][i - body], square[row][i - body]);
    }
    sums[row] = {sum_lanes(product[row]), sum_lanes(square[row])};
  }
}

// In double the product of the squares neither overflows nor underflows, and the root of a square is exact.
SCORE_INLINE float cosine_surprise(double product, double square, double previous_square) {
  const double squares = square * previous_square;
  if (squares == 0.0) return 1.0f;  // a zero token has cosine 0 with every token, as in torch's cosine_similarity
  const float surprise = static_cast<float>(1.0 - product / std::sqrt(squares));
  return surprise < 0.0f ? 0.0f : surprise;
}

// The same for rows whose squares, or sums of squares, are no floats. One loop for all sums, so that of equal rows they
// are equal here too.
template <bool kCosineMetric, typename T>
SCORE_INLINE float wide_surprise(const T* x, const T* p, int64_t width) {
  double product = 0.0, square = 0.0, previous_square = 0.0;
#pragma omp simd reduction(+ : product, square, previous_square)
  for (int64_t i = 0; i < width; ++i) {
    const double a = to_float(x[i]), b = to_float(p[i]);
    product += kCosineMetric ? a * b : (a - b) * (a - b);
    square += kCosineMetric ? a * a : 0.0;
    previous_square += kCosineMetric ? b * b : 0.0;
  }
  return kCosineMetric ? cosine_surprise(product, square, previous_square) : static_cast<float>(std::sqrt(product));
}

#define SCORE_WIDE(T)                                                                                                \
  SCORE_CLONES float wide_cosine(const T* x, const T* p, int64_t width) { return wide_surprise<true>(x, p, width); } \
  SCORE_CLONES float wide_l2(const T* x, const T* p, int64_t width) { return wide_surprise<false>(x, p, width); }
SCORE_WIDE(float)
SCORE_WIDE(Float16)
SCORE_WIDE(BFloat16)
#undef SCORE_WIDE

template <typename T>
bool is_zero(const T* x, int64_t width) {
  const T zero{};
  return std::memcmp(x, &zero, sizeof(T)) == 0 && std::memcmp(x, x + 1, (width - 1) * sizeof(T)) == 0;
}

template <typename T>
SCORE_INLINE float row_cosine(const Sums& sums, float previous_square, const T* x, const T* p, int64_t width) {
  if (sum_is_exact(sums.square) && sum_is_exact(previous_square)) {
    return cosine_surprise(sums.product, sums.square, previous_square);
  }
  // most rows without a square are plain zeros: black pixels, padding; times NaN or infinity they are no zero
  if (sums.product == 0.0f && (is_zero(x, width) || is_zero(p, width))) return 1.0f;
  return wide_cosine(x, p, width);
}

template <typename T>
SCORE_INLINE float row_l2(const Sums& sums, const T* x, const T* p, int64_t width) {
  if (sum_is_exact(sums.product)) return std::sqrt(sums.product);
  return sums.square == 0.0f ? 0.0f : wide_l2(x, p, width);
}

// Frames [frame_begin, frame_end) of places [place_begin, place_end) of the video that begins at row `start`.
struct Item {
  int64_t start, tokens_per_frame;
  int64_t place_begin, place_end;
  int64_t frame_begin, frame_end;
};

// Frames frame .. frame + kRows of the item, none of them the video's first.
template <typename T, bool kCosineMetric, int kRows>
SCORE_INLINE void follow_frames(
    const T* tokens, int64_t width, const Item& item, int64_t frame, float* squares, float* out) {
  const int64_t n = item.tokens_per_frame;
  for (int64_t place = item.place_begin; place < item.place_end; ++place) {
    const int64_t first = item.start + frame * n + place;
    float& square = squares[place - item.place_begin];
    Sums sums[kRows];
    sum_rows<kCosineMetric, kRows>(tokens + first * width, n * width, width, sums);
    for (int row = 0; row < kRows; ++row) {
      const T* x = tokens + (first + row * n) * width;
      const T* p = x - n * width;
      out[first + row * n] =
          kCosineMetric ? row_cosine(sums[row], square, x, p, width) : row_l2(sums[row], x, p, width);
      square = sums[row].square;
    }
  }
}

template <typename T, bool kCosineMetric>
SCORE_INLINE void follow(const T* tokens, int64_t width, const Item& item, float first, float* squares, float* out) {
  const int64_t n = item.tokens_per_frame;
  int64_t frame = std::max<int64_t>(item.frame_begin, 1);
  for (int64_t place = item.place_begin; place < item.place_end; ++place) {
    const int64_t row = item.start + (frame - 1) * n + place;
    if (item.frame_begin == 0) out[row] = first;
    if (!kCosineMetric) continue;
    Sums sums;
    sum_rows<true, 1>(tokens + row * width, 0, width, &sums);
    squares[place - item.place_begin] = sums.square;
  }
  for (; frame + kTogether <= item.frame_end; frame += kTogether) {
    follow_frames<T, kCosineMetric, kTogether>(tokens, width, item, frame, squares, out);
  }
  for (; frame < item.frame_end; ++frame) {
    follow_frames<T, kCosineMetric, 1>(tokens, width, item, frame, squares, out);
  }
}

#define SCORE_FOLLOW(name, T)                                                                         \
  SCORE_CLONES void name##_cosine(                                                                    \
      const void* tokens, int64_t width, const Item& item, float first, float* squares, float* out) { \
    follow<T, true>(static_cast<const T*>(tokens), width, item, first, squares, out);                 \
  }                                                                                                   \
  SCORE_CLONES void name##_l2(                                                                        \
      const void* tokens, int64_t width, const Item& item, float first, float* squares, float* out) { \
    follow<T, false>(static_cast<const T*>(tokens), width, item, first, squares, out);                \
  }
SCORE_FOLLOW(follow_f32, float)
SCORE_FOLLOW(follow_f16, Float16)
SCORE_FOLLOW(follow_bf16, BFloat16)
#undef SCORE_FOLLOW

using Follow = void (*)(const void*, int64_t, const Item&, float, float*, float*);

Follow choose(DType dtype, Metric metric) {
  const bool cosine = metric == Metric::kCosine;
  switch (dtype) {
    case DType::kFloat32:
      return cosine ? follow_f32_cosine : follow_f32_l2;
    case DType::kFloat16:
      return cosine ? follow_f16_cosine : follow_f16_l2;
    default:
      return cosine ? follow_bf16_cosine : follow_bf16_l2;
  }
}

}  // namespace

void surprise(const TokenBatch& batch, Metric metric, float first, float* out) {
  const int64_t row_bytes = batch.width * (batch.dtype == DType::kFloat32 ? 4 : 2);
  const int64_t block = std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(row_bytes, 1), 1, 1024);

  const PackedBatch packed{batch.cu_seqlens, batch.num_videos, batch.num_tokens};
  std::vector<int64_t> first_item(batch.num_videos + 1, 0);  // items of video b: first_item[b] .. first_item[b + 1]
  const auto blocks = [&](int64_t video) { return (batch.tokens_per_frame[video] + block - 1) / block; };
  const auto frames = [&](int64_t video) {
    const int64_t length = video_range(packed, video).length();
    return length == 0 ? 0 : length / batch.tokens_per_frame[video];
  };
  for (int64_t video = 0; video < batch.num_videos; ++video) {
    const int64_t runs = (frames(video) + kRunFrames - 1) / kRunFrames;
    first_item[video + 1] = first_item[video] + runs * blocks(video);
  }

  const Follow follow_item = choose(batch.dtype, metric);
  parallel_for(first_item.back(), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> squares(block);
    int64_t video = std::upper_bound(first_item.begin(), first_item.end(), begin) - first_item.begin() - 1;
    for (int64_t number = begin; number < end; ++number) {
      while (number >= first_item[video + 1]) ++video;
      const int64_t within = number - first_item[video];
      const int64_t n = batch.tokens_per_frame[video];
      Item item{};
      item.start = video_range(packed, video).begin;
      item.tokens_per_frame = n;
      item.place_begin = within % blocks(video) * block;
      item.place_end = std::min(item.place_begin + block, n);
      item.frame_begin = within / blocks(video) * kRunFrames;
      item.frame_end = std::min(item.frame_begin + kRunFrames, frames(video));
      follow_item(batch.tokens, batch.width, item, first, squares.data(), out);
    }
  });
}

}  // namespace score::cpu
