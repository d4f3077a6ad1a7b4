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
#include "relative_cosines.h"
#include "relative_directions.h"
#include "relative_moments.h"
#include "relative_products.h"
#include "relative_videos.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr int64_t kRunRows = 64;         // rows whose directions are added up in float32
constexpr int64_t kRing = 5;             // frames of a slice of columns that are held: this one and four back
constexpr int64_t kRingBytes = 1 << 19;  // for it: what a second-level cache holds
constexpr int64_t kLeastColumns = 64;    // of a slice: a row of fewer is too short to be worth going to memory for
constexpr int64_t kLineFloats = 16;      // of a cache line: a load that straddles two costs as much as two
constexpr int64_t kAheadRows = 16;  // rows whose slice is fetched before it is needed: the hardware sees no pattern

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

SCORE_CLONES void frame_groups(const float* measures, int64_t rows, Group* out) { groups_of_rows(measures, rows, out); }

using Follow = void (*)(const void*, int64_t, const Item&, std::vector<float>&);
using RunDirections = void (*)(const void*, int64_t, int64_t, int64_t, double*, float*, float*);
constexpr Follow kFollow[3] = {follow_f32, follow_f16, follow_bf16};  // in the order of DType
constexpr RunDirections kRunDirections[3] = {run_f32, run_f16, run_bf16};

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
