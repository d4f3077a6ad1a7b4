// relative_measures: 12 cosines and the log-norm of every token, and their moments in frames and videos.
//
// Twice through the tokens. The first time for norms and the mean directions of videos; the second time for inner
// products of centred directions, a slice of columns at a time, so that five frames of it stay in the cache. Centring
// comes before any product: where tokens have a large common component, differences of products would be noise.
//
// A video's numbers depend on that video alone, to the bit: every sum runs in an order that its sizes fix.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "relative_videos.h"
#include "score/sums.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr int kLanes = 32;
constexpr int64_t kRunRows = 64;  // rows whose directions are added up in float32

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

// |x| in double, for rows whose squares, or sums of squares, are no floats.
template <typename T>
SCORE_INLINE double wide_norm(const T* x, int64_t width) {
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(to_float(x[i])) * static_cast<double>(to_float(x[i]));
  return std::sqrt(sum);
}

// out[i] = x[i] / |x| - mean[i]; inverse is 1 / |x|, 0 for a zero token.
template <typename T>
SCORE_INLINE void direction(const T* x, double inverse, const float* mean, int64_t width, float* out) {
  if (inverse >= 0x1p-63 && inverse <= 0x1p50) {
    const float scale = static_cast<float>(inverse);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = to_float(x[i]) * scale - mean[i];
  } else {
    for (int64_t i = 0; i < width; ++i) {
      out[i] = static_cast<float>(static_cast<double>(to_float(x[i])) * inverse) - mean[i];
    }
  }
}

// Inner products of each token's centred direction c.
enum Product : int { kAround, kTwoBack = 9, kFourBack, kUp, kLeft, kSelf, kFrame, kVideo, kProducts };

struct Slice {
  int64_t begin, width;
};

struct Item {
  const RelativeVideo& video;
  int64_t frame_begin, frame_end;
  const float* mean;      // [width], the video's mean direction m
  const double* inverse;  // [L]
  float* products;        // [L, kProducts]
  float* frame_sums;      // [T, 2]: |f - m|^2 and <m, f - m>
};

SCORE_INLINE float dot(const float* a, const float* b, int64_t width) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

constexpr int64_t kRing = 5;  // frames of a slice that are held: this one and four back
constexpr int64_t kRingBytes = 400 << 10;

int64_t slice_width(const RelativeVideo& video) {
  const int64_t fits = kRingBytes / (kRing * video.per_frame * static_cast<int64_t>(sizeof(float)));
  return std::clamp<int64_t>(fits / 16 * 16, 32, 256);
}

template <typename T>
SCORE_INLINE void follow(const T* tokens, int64_t width, const Item& item, std::vector<float>& scratch) {
  const RelativeVideo& video = item.video;
  const int64_t n = video.per_frame, most = std::min(slice_width(video), width);
  scratch.assign((kRing * n + 1) * most, 0.0f);
  float* offset = scratch.data() + kRing * n * most;  // f - m
  for (int64_t column = 0; column < width; column += most) {
    const int64_t size = std::min(most, width - column);
    const float* mean = item.mean + column;
    for (int64_t frame = std::max<int64_t>(item.frame_begin - 4, 0); frame < item.frame_end; ++frame) {
      const auto ring = [&](int64_t number) { return scratch.data() + (number % kRing) * n * most; };
      float* current = ring(frame);
      const int64_t row = video.begin + frame * n;
      for (int64_t i = 0; i < n; ++i) {
        direction(tokens + (row + i) * width + column, item.inverse[row + i], mean, size, current + i * most);
      }
      if (frame < item.frame_begin) continue;
      std::fill_n(offset, size, 0.0f);
      for (int64_t i = 0; i < n; ++i) {
#pragma omp simd
        for (int64_t d = 0; d < size; ++d) offset[d] += current[i * most + d];
      }
      for (int64_t d = 0; d < size; ++d) offset[d] /= static_cast<float>(n);
      float* sums = item.frame_sums + (video.first_frame + frame) * 2;
      sums[0] += dot(offset, offset, size);
      sums[1] += dot(offset, mean, size);
      for (int64_t i = 0; i < n; ++i) {
        const float* c = current + i * most;
        float* out = item.products + (row + i) * kProducts;
        const int64_t down = i / video.columns, right = i % video.columns;
        const auto add = [&](int product, const float* other) { out[product] += dot(c, other, size); };
        if (frame >= 1) {
          for (int k = 0; k < 9; ++k) {
            const int64_t y = down + k / 3 - 1, x = right + k % 3 - 1;
            if (y < 0 || y >= video.rows || x < 0 || x >= video.columns) continue;
            add(kAround + k, ring(frame - 1) + (y * video.columns + x) * most);
          }
        }
        if (frame >= 2) add(kTwoBack, ring(frame - 2) + i * most);
        if (frame >= 4) add(kFourBack, ring(frame - 4) + i * most);
        if (down > 0) add(kUp, c - video.columns * most);
        if (right > 0) add(kLeft, c - most);
        add(kSelf, c);
        add(kFrame, offset);
        add(kVideo, mean);
      }
    }
  }
}

// Norms of rows begin .. end, and the sum of their directions, [width].
template <typename T>
SCORE_INLINE void add_directions(
    const T* tokens, int64_t width, int64_t begin, int64_t end, double* inverse, float* measures, float* sum) {
  std::fill_n(sum, width, 0.0f);
  std::vector<float> unit(width), zero(width, 0.0f);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = tokens + row * width;
    const float squares = square_sum(x, width);
    const double norm = sum_is_exact(squares) ? std::sqrt(static_cast<double>(squares)) : wide_norm(x, width);
    inverse[row] = norm == 0.0 ? 0.0 : 1.0 / norm;
    measures[row * kMeasures + kLogNorm] = static_cast<float>(std::log(norm));
    direction(x, inverse[row], zero.data(), width, unit.data());
    for (int64_t i = 0; i < width; ++i) sum[i] += unit[i];
  }
}

#define SCORE_RELATIVE(name, T)                                                                                       \
  SCORE_CLONES void follow_##name(const void* tokens, int64_t width, const Item& item, std::vector<float>& scratch) { \
    follow(static_cast<const T*>(tokens), width, item, scratch);                                                      \
  }                                                                                                                   \
  SCORE_CLONES void add_##name(                                                                                       \
      const void* tokens, int64_t width, int64_t begin, int64_t end, double* inverse, float* measures, float* sum) {  \
    add_directions(static_cast<const T*>(tokens), width, begin, end, inverse, measures, sum);                         \
  }
SCORE_RELATIVE(f32, float)
SCORE_RELATIVE(f16, Float16)
SCORE_RELATIVE(bf16, BFloat16)
#undef SCORE_RELATIVE

using Follow = void (*)(const void*, int64_t, const Item&, std::vector<float>&);
using AddDirections = void (*)(const void*, int64_t, int64_t, int64_t, double*, float*, float*);
constexpr Follow kFollow[3] = {follow_f32, follow_f16, follow_bf16};  // in the order of DType
constexpr AddDirections kAddDirections[3] = {add_f32, add_f16, add_bf16};

// The larger, NaN if either is.
SCORE_INLINE float larger(float a, float b) { return b > a || b != b ? b : a; }

// The cosines of one frame's tokens, from the products of it and of the one after.
void finish_frame(
    const RelativeVideo& video, int64_t frame, const float* products, const float* frame_sums, float squared_mean,
    float* measures) {
  const int64_t n = video.per_frame, columns = video.columns, rows = video.rows;
  const auto sums = [&](int64_t row) { return products + row * kProducts; };
  const auto root = [&](int64_t row) { return std::sqrt(sums(row)[kSelf] + kTiny); };
  const float* of_frame = frame_sums + (video.first_frame + frame) * 2;
  const float frame_root = std::sqrt(of_frame[0] + kTiny);
  const float frame_square = of_frame[0] + 2.0f * of_frame[1] + squared_mean;  // |f|^2
  const float frame_plain_root = std::sqrt(std::max(frame_square, 0.0f) + kTiny);
  const float video_root = std::sqrt(squared_mean + kTiny);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = video.begin + frame * n + i, down = i / columns, right = i % columns;
    const float* own = sums(row);
    const float own_root = root(row), along = own[kVideo] + squared_mean;  // <u, m>
    float* out = measures + row * kMeasures;
    std::fill_n(out, kCosines, 0.0f);
    const auto inside = [&](int64_t y, int64_t x) { return y >= 0 && y < rows && x >= 0 && x < columns; };
    if (frame >= 1) {
      const int64_t before = row - n;
      out[kBack1] = own[kAround + 4] / (own_root * root(before));
      out[kBack1Plain] = own[kAround + 4] + along + sums(before)[kVideo];
      float best = kNone;
      for (int k = 0; k < 9; ++k) {
        const int64_t y = k / 3 - 1, x = k % 3 - 1;
        if (inside(down + y, right + x)) {
          best = larger(best, own[kAround + k] / (own_root * root(before + y * columns + x)));
        }
      }
      out[kBackBest] = best;
    }
    if (frame >= 2) out[kBack2] = own[kTwoBack] / (own_root * root(row - 2 * n));
    if (frame >= 4) out[kBack4] = own[kFourBack] / (own_root * root(row - 4 * n));
    if (frame + 1 < video.frames) {
      const int64_t after = row + n;
      out[kAhead1] = sums(after)[kAround + 4] / (own_root * root(after));
      float best = kNone;
      for (int k = 0; k < 9; ++k) {  // the token there sees this one the other way round
        const int64_t y = 1 - k / 3, x = 1 - k % 3;
        if (inside(down + y, right + x)) {
          const int64_t there = after + y * columns + x;
          best = larger(best, sums(there)[kAround + k] / (own_root * root(there)));
        }
      }
      out[kAheadBest] = best;
    }
    if (n > 1) {
      float best = kNone, sum = 0.0f, count = 0.0f;
      const auto see = [&](bool there, int64_t neighbour, float product) {
        if (!there) return;
        const float cosine = product / (own_root * root(neighbour));
        best = larger(best, cosine);
        sum += cosine;
        count += 1.0f;
      };
      see(down > 0, row - columns, own[kUp]);
      see(right > 0, row - 1, own[kLeft]);
      if (down + 1 < rows) see(true, row + columns, sums(row + columns)[kUp]);
      if (right + 1 < columns) see(true, row + 1, sums(row + 1)[kLeft]);
      out[kNearMean] = sum / count;
      out[kNearBest] = best;
    }
    out[kToFrame] = own[kFrame] / (own_root * frame_root);
    out[kFramePlain] = (own[kFrame] + own[kVideo] + of_frame[1] + squared_mean) / frame_plain_root;
    out[kVideoPlain] = along / video_root;
  }
}

// How many values there are, their mean, and the sum of squares around it.
struct Group {
  double count = 0.0, mean = 0.0, squares = 0.0;
  void write(double* moments) const {
    moments[0] = mean;
    moments[1] = 1.0 / std::sqrt(squares / std::max(count, 1.0) + kLeastVariance);
  }
};

Group frame_group(const float* measures, int64_t rows, int measure) {
  const auto value = [&](int64_t i) { return measures[i * kMeasures + measure]; };
  const auto missing = [&](int64_t i) { return measure == kLogNorm && value(i) == -INFINITY; };
  Group group;
  double sum = 0.0;
  for (int64_t i = 0; i < rows; ++i) {
    if (missing(i)) continue;
    group.count += 1.0;
    sum += value(i);
  }
  group.mean = sum / std::max(group.count, 1.0);
  for (int64_t i = 0; i < rows; ++i) {
    if (missing(i)) continue;
    const double deviation = value(i) - group.mean;
    group.squares += deviation * deviation;
  }
  return group;
}

// Of all frames' values together. first [frames, kMeasures].
Group video_group(const Group* first, int64_t frames, int measure) {
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

}  // namespace

void relative_measures(const RelativeBatch& batch, float* measures, double* moments) {
  const TokenBatch& tokens = batch.tokens;
  const int64_t width = tokens.width, length = tokens.num_tokens;
  const int dtype = static_cast<int>(tokens.dtype);
  const std::vector<RelativeVideo> videos = relative_videos(batch);
  const int64_t num_videos = tokens.num_videos;

  const ItemsOfVideos runs(
      videos, [](const RelativeVideo& video) { return (video.frames * video.per_frame + kRunRows - 1) / kRunRows; });
  std::vector<double> inverse(length);
  std::vector<float> run_sums(runs.count() * width);
  parallel_for(runs.count(), 1, [&](int64_t begin, int64_t end) {
    runs.each(begin, end, [&](int64_t number, int64_t run) {
      const RelativeVideo& video = videos[number];
      const int64_t first = video.begin + run * kRunRows;
      const int64_t last = std::min(first + kRunRows, video.begin + video.frames * video.per_frame);
      float* sum = run_sums.data() + (runs.first(number) + run) * width;
      kAddDirections[dtype](tokens.tokens, width, first, last, inverse.data(), measures, sum);
    });
  });

  std::vector<float> mean(num_videos * width), squared_mean(num_videos);
  parallel_for(num_videos, 1, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const double rows = static_cast<double>(videos[number].frames * videos[number].per_frame);
      double squares = 0.0;
      for (int64_t i = 0; i < width; ++i) {
        double sum = 0.0;
        for (int64_t run = runs.first(number); run < runs.first(number + 1); ++run) sum += run_sums[run * width + i];
        const float value = static_cast<float>(sum / std::max(rows, 1.0));
        mean[number * width + i] = value;
        squares += static_cast<double>(value) * value;
      }
      squared_mean[number] = static_cast<float>(squares);
    }
  });

  std::vector<float> products(length * kProducts, 0.0f), frame_sums(batch.num_frames * 2, 0.0f);
  constexpr int64_t kChunk = 16;
  const ItemsOfVideos chunks(videos, [](const RelativeVideo& video) { return (video.frames + kChunk - 1) / kChunk; });
  parallel_for(chunks.count(), 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    chunks.each(begin, end, [&](int64_t number, int64_t chunk) {
      const RelativeVideo& video = videos[number];
      const Item item{
          video,
          chunk * kChunk,
          std::min((chunk + 1) * kChunk, video.frames),
          mean.data() + number * width,
          inverse.data(),
          products.data(),
          frame_sums.data()};
      kFollow[dtype](tokens.tokens, width, item, scratch);
    });
  });

  std::vector<Group> groups(batch.num_frames * kMeasures);
  const ItemsOfVideos frames(videos, [](const RelativeVideo& video) { return video.frames; });
  parallel_for(frames.count(), 1, [&](int64_t begin, int64_t end) {
    frames.each(begin, end, [&](int64_t number, int64_t frame) {
      const RelativeVideo& video = videos[number];
      finish_frame(video, frame, products.data(), frame_sums.data(), squared_mean[number], measures);
      Group* of_frame = groups.data() + (video.first_frame + frame) * kMeasures;
      for (int m = 0; m < kMeasures; ++m) {
        const bool exists = m == kLogNorm || cosine_exists(m, frame, video.frames, video.per_frame);
        const float* first = measures + (video.begin + frame * video.per_frame) * kMeasures;
        of_frame[m] = exists ? frame_group(first, video.per_frame, m) : Group{};
        of_frame[m].write(moments + ((video.first_frame + frame) * kMeasures + m) * 2);
      }
    });
  });
  parallel_for(num_videos, 1, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const RelativeVideo& video = videos[number];
      for (int m = 0; m < kMeasures; ++m) {
        video_group(groups.data() + video.first_frame * kMeasures, video.frames, m)
            .write(moments + ((batch.num_frames + number) * kMeasures + m) * 2);
      }
    }
  });
}

}  // namespace score::cpu
