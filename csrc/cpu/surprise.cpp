// surprise: how much each token differs from the one at its place in the frame before.
//
// One pass over the tokens. A work item is a block of neighbouring places, small enough for the cache, followed
// through a run of frames: each row is fetched from memory once, and is still cached when the next frame needs it.
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
constexpr int64_t kAheadBytes = 8 << 10;    // fetched before it is needed: rows are too short for the hardware to see
constexpr int kLanes = 32;                  // independent sums: two AVX-512 or four AVX2 registers each

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

// Lanes kLanes at a time. bfloat16 is read in pairs: of a word, the upper half is a float as it stands and the lower
// one after a shift, which spares the widening of every element.
template <bool kCosineMetric, typename T>
SCORE_INLINE void accumulate_lanes(const T* x, const T* p, float* product, float* square) {
#pragma omp simd
  for (int lane = 0; lane < kLanes; ++lane) {
    accumulate<kCosineMetric>(to_float(x[lane]), to_float(p[lane]), product[lane], square[lane]);
  }
}
template <bool kCosineMetric>
SCORE_INLINE void accumulate_lanes(const BFloat16* x, const BFloat16* p, float* product, float* square) {
#pragma omp simd
  for (int pair = 0; pair < kLanes / 2; ++pair) {
    uint32_t a, b;
    std::memcpy(&a, x + 2 * pair, sizeof(a));
    std::memcpy(&b, p + 2 * pair, sizeof(b));
    accumulate<kCosineMetric>(bits_float(a << 16), bits_float(b << 16), product[pair], square[pair]);
    accumulate<kCosineMetric>(
        bits_float(a & 0xFFFF0000u), bits_float(b & 0xFFFF0000u), product[kLanes / 2 + pair],
        square[kLanes / 2 + pair]);
  }
}

SCORE_INLINE float sum_lanes(float* lanes) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <typename T, bool kCosineMetric>
SCORE_INLINE Sums row_sums(const T* x, const T* p, int64_t width) {
  float product[kLanes] = {}, square[kLanes] = {};
  const int64_t body = width - width % kLanes;
  for (int64_t i = 0; i < body; i += kLanes) {
    const uintptr_t ahead = reinterpret_cast<uintptr_t>(x + i) + kAheadBytes;  // may lie past the end: only a hint
    for (size_t line = 0; line < kLanes * sizeof(T); line += 64)
      __builtin_prefetch(reinterpret_cast<void*>(ahead + line));
    accumulate_lanes<kCosineMetric>(x + i, p + i, product, square);
  }
  for (int64_t i = body; i < width; ++i) {
    accumulate<kCosineMetric>(to_float(x[i]), to_float(p[i]), product[i - body], square[i - body]);
  }
  return {sum_lanes(product), sum_lanes(square)};
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

template <typename T, bool kCosineMetric>
SCORE_INLINE void follow(const T* tokens, int64_t width, const Item& item, float first, float* squares, float* out) {
  const int64_t n = item.tokens_per_frame;
  for (int64_t frame = item.frame_begin; frame < item.frame_end; ++frame) {
    for (int64_t place = item.place_begin; place < item.place_end; ++place) {
      const int64_t row = item.start + frame * n + place;
      const T* x = tokens + row * width;
      float& square = squares[place - item.place_begin];
      if (frame == 0) {
        out[row] = first;
        if (kCosineMetric) square = row_sums<T, true>(x, x, width).square;
        continue;
      }
      const T* p = x - n * width;
      if (kCosineMetric && frame == item.frame_begin) square = row_sums<T, true>(p, p, width).square;
      const Sums sums = row_sums<T, kCosineMetric>(x, p, width);
      out[row] = kCosineMetric ? row_cosine(sums, square, x, p, width) : row_l2(sums, x, p, width);
      square = sums.square;
    }
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
