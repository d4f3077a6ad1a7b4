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
#include "relative_products.h"
#include "relative_videos.h"
#include "score/sums.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr int kLanes = 32;
constexpr int64_t kRunRows = 64;         // rows whose directions are added up in float32
constexpr int64_t kTogether = 4;         // of them at a time
constexpr int64_t kRing = 5;             // frames of a slice of columns that are held: this one and four back
constexpr int64_t kRingBytes = 1 << 19;  // for it: what a second-level cache holds
constexpr int64_t kLeastColumns = 64;    // of a slice: a row of fewer is too short to be worth going to memory for
constexpr int64_t kLineFloats = 16;      // of a cache line: a load that straddles two costs as much as two
constexpr int64_t kAheadRows = 16;  // rows whose slice is fetched before it is needed: the hardware sees no pattern

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

// |x|, in double where its square, or squares in it, are no floats.
template <typename T>
SCORE_INLINE double row_norm(const T* x, int64_t width) {
  const float squares = square_sum(x, width);
  if (sum_is_exact(squares)) return std::sqrt(static_cast<double>(squares));
  double sum = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(to_float(x[i])) * static_cast<double>(to_float(x[i]));
  return std::sqrt(sum);
}

// Whether x / |x| can be had by a product in float32; inverse is 1 / |x|, 0 for a zero token.
SCORE_INLINE bool is_plain(double inverse) { return inverse >= 0x1p-63 && inverse <= 0x1p50; }

template <typename T>
SCORE_INLINE float wide_unit(T x, double inverse) {
  return static_cast<float>(static_cast<double>(to_float(x)) * inverse);
}

// sum[i] += the direction of each of `count` rows, at most kTogether.
template <typename T>
SCORE_INLINE void add_directions(const T* x, int64_t width, int64_t count, const double* inverse, float* sum) {
  const auto plain = [&](int64_t row) { return is_plain(inverse[row]); };
  if (count == kTogether && plain(0) && plain(1) && plain(2) && plain(3)) {
    const float s0 = static_cast<float>(inverse[0]), s1 = static_cast<float>(inverse[1]);
    const float s2 = static_cast<float>(inverse[2]), s3 = static_cast<float>(inverse[3]);
    const T *x1 = x + width, *x2 = x1 + width, *x3 = x2 + width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      sum[i] += (to_float(x[i]) * s0 + to_float(x1[i]) * s1) + (to_float(x2[i]) * s2 + to_float(x3[i]) * s3);
    }
    return;
  }
  for (int64_t row = 0; row < count; ++row, x += width) {
    for (int64_t i = 0; i < width; ++i) sum[i] += wide_unit(x[i], inverse[row]);
  }
}

// Norms of rows begin .. end, and the sum of their directions, [width].
template <typename T>
SCORE_INLINE void run_directions(
    const T* tokens, int64_t width, int64_t begin, int64_t end, double* inverse, float* measures, float* sum) {
  std::fill_n(sum, width, 0.0f);
  for (int64_t first = begin; first < end; first += kTogether) {
    const int64_t last = std::min(first + kTogether, end);
    for (int64_t row = first; row < last; ++row) {
      const double norm = row_norm(tokens + row * width, width);
      inverse[row] = norm == 0.0 ? 0.0 : 1.0 / norm;
      measures[row * kMeasures + kLogNorm] = static_cast<float>(std::log(norm));
    }
    add_directions(tokens + first * width, width, last - first, inverse + first, sum);
  }
}

// The mean direction of a video: m as float32, and what rounding took from it.
struct MeanDirection {
  const float *high, *low;  // [width] each
};

// Frames frame_begin .. frame_end of a video.
struct Item {
  const RelativeVideo& video;
  int64_t frame_begin, frame_end;
  MeanDirection mean;
  const double* inverse;  // [L]
  float* products;        // blocks of the video's pairs
  float* frame_sums;      // [T, 2] of the video: |f - m|^2 and <m, f - m>
};

// How the places of a frame lie in memory: a row's after each other, with one that is always 0 before and behind them,
// and such rows above and below. A pair's second token may be one of those.
struct Grid {
  explicit Grid(const RelativeVideo& video)
      : rows(video.rows), columns(video.columns), pairs((columns + 1) / 2), stride(2 * pairs + 1) {}
  int64_t place(int64_t down, int64_t right) const { return (down + 1) * stride + right + 1; }
  int64_t places() const { return (rows + 2) * stride + 2; }
  int64_t rows, columns, pairs, stride;
};

int64_t whole_lines(int64_t floats) { return (floats + kLineFloats - 1) / kLineFloats * kLineFloats; }

// Columns of a slice; slices are as equal as whole lines allow. Fixed by the sizes of a frame and of a token alone, as
// the order of sums is.
int64_t slice_width(const Grid& grid, int64_t width) {
  const int64_t fits = kRingBytes / (kRing * grid.places() * static_cast<int64_t>(sizeof(float)));
  const int64_t most = std::clamp<int64_t>(fits / kLineFloats * kLineFloats, kLeastColumns, 256);
  const int64_t slices = (width + most - 1) / most;
  return whole_lines((width + slices - 1) / slices);
}

// out = x / |x| - mean, sum += out, of one row; columns size .. padded of out are 0.
template <typename T>
SCORE_INLINE void centre_row(const T* x, double inverse, const float* mean, int64_t size, float* out, float* sum) {
  if (is_plain(inverse)) {
    const float scale = static_cast<float>(inverse);
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      const float c = to_float(x[i]) * scale - mean[i];
      out[i] = c;
      sum[i] += c;
    }
  } else {
    for (int64_t i = 0; i < size; ++i) {
      out[i] = wide_unit(x[i], inverse) - mean[i];
      sum[i] += out[i];
    }
  }
}

// A slice of one frame: its centred directions, and sum [size], their sum.
template <typename T>
SCORE_INLINE void centre_frame(
    const T* x, int64_t width, const double* inverse, const float* mean, int64_t size, int64_t padded, const Grid& grid,
    float* out, float* sum) {
  std::fill_n(sum, size, 0.0f);
  for (int64_t down = 0; down < grid.rows; ++down) {
    for (int64_t right = 0; right < grid.columns; ++right, x += width, ++inverse) {
      const uintptr_t ahead = reinterpret_cast<uintptr_t>(x + kAheadRows * width);  // may lie past the end: only a hint
      for (size_t line = 0; line < size * sizeof(T); line += 64) {
        __builtin_prefetch(reinterpret_cast<const void*>(ahead + line));
      }
      centre_row(x, *inverse, mean, size, out + grid.place(down, right) * padded, sum);
    }
  }
}

template <typename T>
SCORE_INLINE void follow(const T* tokens, int64_t width, const Item& item, std::vector<float>& scratch) {
  const RelativeVideo& video = item.video;
  const Grid grid(video);
  const int64_t n = video.per_frame, most = slice_width(grid, width), frame_floats = grid.places() * most;
  scratch.assign(kRing * frame_floats + 2 * most + kLineFloats, 0.0f);
  float* first = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  float *offset = first + kRing * frame_floats, *mean = offset + most;
  for (int64_t column = 0; column < width; column += most) {
    const int64_t size = std::min(most, width - column), padded = whole_lines(size);
    if (size < most) std::fill_n(first, kRing * frame_floats, 0.0f);  // places begin elsewhere in a last slice
    std::copy_n(item.mean.high + column, size, mean);
    std::fill(mean + size, mean + padded, 0.0f);
    std::fill(offset + size, offset + padded, 0.0f);
    const auto ring = [&](int64_t number) { return first + (number + kRing) % kRing * frame_floats; };
    for (int64_t frame = std::max<int64_t>(item.frame_begin - 4, 0); frame < item.frame_end; ++frame) {
      float* current = ring(frame);
      const int64_t row = video.begin + frame * n;
      centre_frame(tokens + row * width + column, width, item.inverse + row, mean, size, padded, grid, current, offset);
      if (frame < item.frame_begin) continue;
      float square = 0.0f, along = 0.0f;
      for (int64_t d = 0; d < size; ++d) {
        // f - m, which is 0 where the frame is the video
        offset[d] = video.frames == 1 ? 0.0f : offset[d] / static_cast<float>(n) - item.mean.low[column + d];
        square += offset[d] * offset[d];
        along += offset[d] * mean[d];
      }
      item.frame_sums[2 * frame] += square;
      item.frame_sums[2 * frame + 1] += along;
      float* out = item.products + frame * grid.rows * grid.pairs * kPair;
      for (int64_t down = 0; down < grid.rows; ++down) {
        for (int64_t pair = 0; pair < grid.pairs; ++pair, out += kPair) {
          const auto at = [&](const float* of, int64_t y, int64_t x) {
            return of + grid.place(down + y, 2 * pair + x) * padded;
          };
          const float* before = ring(frame - 1);
          const PairOperands operands{
              at(current, 0, 0),
              at(current, -1, 0),
              {at(before, -1, -1), at(before, 0, -1), at(before, 1, -1)},
              at(ring(frame - 2), 0, 0),
              at(ring(frame - 4), 0, 0),
              offset,
              mean};
          if (frame == 0) {
            add_products<false>(operands, padded, padded, out);
          } else {
            add_products<true>(operands, padded, padded, out);
          }
        }
      }
    }
  }
}

#define SCORE_RELATIVE(name, T)                                                                                       \
  SCORE_CLONES void follow_##name(const void* tokens, int64_t width, const Item& item, std::vector<float>& scratch) { \
    follow(static_cast<const T*>(tokens), width, item, scratch);                                                      \
  }                                                                                                                   \
  SCORE_CLONES void run_##name(                                                                                       \
      const void* tokens, int64_t width, int64_t begin, int64_t end, double* inverse, float* measures, float* sum) {  \
    run_directions(static_cast<const T*>(tokens), width, begin, end, inverse, measures, sum);                         \
  }
SCORE_RELATIVE(f32, float)
SCORE_RELATIVE(f16, Float16)
SCORE_RELATIVE(bf16, BFloat16)
#undef SCORE_RELATIVE

using Follow = void (*)(const void*, int64_t, const Item&, std::vector<float>&);
using RunDirections = void (*)(const void*, int64_t, int64_t, int64_t, double*, float*, float*);
constexpr Follow kFollow[3] = {follow_f32, follow_f16, follow_bf16};  // in the order of DType
constexpr RunDirections kRunDirections[3] = {run_f32, run_f16, run_bf16};

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
void finish_frame(const Finish& of, int64_t frame, float* out) {
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
void inverse_roots(const float* products, const Grid& grid, float* out) {
  for (int64_t down = 0; down < grid.rows; ++down) {
    for (int64_t right = 0; right < grid.columns; ++right) {
      const float* block = products + (down * grid.pairs + right / 2) * kPair;
      *out++ = 1.0f / std::sqrt(block[kPlace[right % 2][kSelf]] + kTiny);
    }
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

// Of every measure over rows [rows, kMeasures]; of log-norms those that are numbers.
SCORE_CLONES void frame_groups(const float* measures, int64_t rows, Group* out) {
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
      kRunDirections[dtype](tokens.tokens, width, first, last, inverse.data(), measures, sum);
    });
  });

  std::vector<float> mean(2 * num_videos * width), squared_mean(num_videos);
  const auto mean_of = [&](int64_t number) {
    return MeanDirection{mean.data() + 2 * number * width, mean.data() + (2 * number + 1) * width};
  };
  parallel_for(num_videos * width, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t number = i / width, column = i % width;
      const double rows = static_cast<double>(videos[number].frames * videos[number].per_frame);
      double sum = 0.0;
      for (int64_t run = runs.first(number); run < runs.first(number + 1); ++run) sum += run_sums[run * width + column];
      const double value = sum / std::max(rows, 1.0);
      const float high = static_cast<float>(value);
      mean[2 * number * width + column] = high;
      mean[(2 * number + 1) * width + column] = static_cast<float>(value - high);
    }
  });
  run_sums = {};

  const ItemsOfVideos blocks(videos, [](const RelativeVideo& video) {
    const Grid grid(video);
    return video.frames * grid.rows * grid.pairs;
  });
  std::vector<float> products(blocks.count() * kPair, 0.0f), frame_sums(batch.num_frames * 2, 0.0f);
  const auto products_of = [&](int64_t number) { return products.data() + blocks.first(number) * kPair; };
  // Shares by tokens; a frame belongs to where it begins.
  parallel_for(length, 256, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    for (int64_t number = 0; number < num_videos; ++number) {
      const RelativeVideo& video = videos[number];
      const auto frame_from = [&](int64_t row) {
        const int64_t within = std::max<int64_t>(row - video.begin, 0);
        return std::min((within + video.per_frame - 1) / video.per_frame, video.frames);
      };
      const Item item{
          video,
          frame_from(begin),
          frame_from(end),
          mean_of(number),
          inverse.data(),
          products_of(number),
          frame_sums.data() + 2 * video.first_frame};
      if (item.frame_begin < item.frame_end) kFollow[dtype](tokens.tokens, width, item, scratch);
    }
  });

  std::vector<float> roots(length);
  const ItemsOfVideos frames(videos, [](const RelativeVideo& video) { return video.frames; });
  const auto each_frame = [&](const auto& body) {
    parallel_for(frames.count(), 1, [&](int64_t begin, int64_t end) { frames.each(begin, end, body); });
  };
  each_frame([&](int64_t number, int64_t frame) {
    const RelativeVideo& video = videos[number];
    const Grid grid(video);
    const float* of_frame = products_of(number) + frame * grid.rows * grid.pairs * kPair;
    inverse_roots(of_frame, grid, roots.data() + video.begin + frame * video.per_frame);
    if (frame > 0) return;
    const float* m = mean_of(number).high;
    double squares = 0.0;
    for (int64_t i = 0; i < width; ++i) squares += static_cast<double>(m[i]) * m[i];
    squared_mean[number] = static_cast<float>(squares);
  });

  std::vector<Group> groups(batch.num_frames * kMeasures);
  each_frame([&](int64_t number, int64_t frame) {
    const RelativeVideo& video = videos[number];
    const Finish finish{
        video, products_of(number), roots.data() + video.begin, frame_sums.data() + 2 * video.first_frame,
        squared_mean[number]};
    float* out = measures + (video.begin + frame * video.per_frame) * kMeasures;
    finish_frame(finish, frame, out);
    Group* of_frame = groups.data() + (video.first_frame + frame) * kMeasures;
    frame_groups(out, video.per_frame, of_frame);
    for (int m = 0; m < kMeasures; ++m) {
      if (m != kLogNorm && !cosine_exists(m, frame, video.frames, video.per_frame)) of_frame[m] = {};
      of_frame[m].write(moments + ((video.first_frame + frame) * kMeasures + m) * 2);
    }
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
