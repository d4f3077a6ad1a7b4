// relative_rows: rows of the relative state, from the measures and their moments.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "relative_videos.h"
#include "simd.h"

namespace score::cpu {
namespace {

constexpr int kPadded = 16;  // kMeasures rounded up to whole registers

// Mean and 1 / deviation of every measure, in a video or a frame of it.
struct Moments {
  double mean[kPadded], inverse[kPadded];
};

void unpack(const double* moments, Moments& out) {
  for (int m = 0; m < kMeasures; ++m) {
    out.mean[m] = moments[2 * m];
    out.inverse[m] = moments[2 * m + 1];
  }
}

SCORE_CLONES void scores(const float* values, const Moments& moments, float* out) {
#pragma omp simd
  for (int m = 0; m < kPadded; ++m) {
    out[m] = asinh_float(static_cast<float>((static_cast<double>(values[m]) - moments.mean[m]) * moments.inverse[m]));
  }
}

// u and its waves, [1 + 2 * kFrequencies], for u = place / (size - 1).
struct Waves {
  float values[1 + 2 * kFrequencies];
  Waves(int64_t place, int64_t size) {
    constexpr double kPi = 3.14159265358979323846;
    const double unit = static_cast<double>(place) / static_cast<double>(std::max<int64_t>(size - 1, 1));
    values[0] = static_cast<float>(unit);
    for (int j = 0; j < kFrequencies; ++j) {
      const double angle = kPi * static_cast<double>(1 << j) * unit;
      values[1 + j] = static_cast<float>(std::sin(angle));
      values[1 + kFrequencies + j] = static_cast<float>(std::cos(angle));
    }
  }
};

std::vector<Waves> all_waves(int64_t size) {
  std::vector<Waves> waves;
  waves.reserve(size);
  for (int64_t place = 0; place < size; ++place) waves.emplace_back(place, size);
  return waves;
}

// What rows of one video share.
struct Context {
  explicit Context(const RelativeVideo& video, bool position)
      : down(all_waves(position ? video.rows : 0)), right(all_waves(position ? video.columns : 0)) {}
  std::vector<Waves> down, right;
  Moments of_video{}, of_frame{};
};

// The cosines first .. last, as they are and as scores: 3 * (last - first) columns.
float* put_cosines(
    int first, int last, const float* values, const float* of_video, const float* of_frame, const bool* exists,
    float* out) {
  for (int m = first; m < last; ++m) *out++ = values[m];
  for (int m = first; m < last; ++m) *out++ = exists[m] ? of_video[m] : 0.0f;
  for (int m = first; m < last; ++m) *out++ = exists[m] ? of_frame[m] : 0.0f;
  return out;
}

float* put_position(const Waves& time, const Waves& down, const Waves& right, float* out) {
  const Waves* axes[3] = {&time, &down, &right};
  for (const Waves* axis : axes) *out++ = axis->values[0];
  for (int part = 0; part < 2; ++part) {  // sines, then cosines
    for (const Waves* axis : axes) {
      for (int j = 0; j < kFrequencies; ++j) *out++ = axis->values[1 + part * kFrequencies + j];
    }
  }
  return out;
}

template <typename Out>
void round_row(const float* row, int64_t columns, void* out, int64_t number) {
  Out* to = static_cast<Out*>(out) + number * columns;
  for (int64_t i = 0; i < columns; ++i) to[i] = from_float<Out>(row[i]);
}

using RoundRow = void (*)(const float*, int64_t, void*, int64_t);
constexpr RoundRow kRoundRow[3] = {round_row<float>, round_row<Float16>, round_row<BFloat16>};  // in the order of DType

}  // namespace

void relative_rows(
    const RelativeBatch& batch, const float* measures, const double* moments, const RelativeParts& parts, int64_t begin,
    int64_t end, DType out_dtype, void* out) {
  const std::vector<RelativeVideo> videos = relative_videos(batch);
  const int64_t total_columns = parts.columns();
  const RoundRow round = kRoundRow[static_cast<int>(out_dtype)];
  parallel_for(end - begin, 64, [&](int64_t range_begin, int64_t range_end) {
    std::vector<float> row_values(total_columns);
    int64_t row = begin + range_begin;
    const int32_t* cu = batch.tokens.cu_seqlens;
    int64_t number = std::upper_bound(cu, cu + batch.tokens.num_videos + 1, row) - cu - 1;
    while (row < begin + range_end) {
      const RelativeVideo& video = videos[number];
      const int64_t video_end = std::min<int64_t>(begin + range_end, video.begin + video.frames * video.per_frame);
      Context context(video, parts.position);
      unpack(moments + (batch.num_frames + number) * kMeasures * 2, context.of_video);
      while (row < video_end) {
        const int64_t frame = (row - video.begin) / video.per_frame;
        const int64_t frame_begin = video.begin + frame * video.per_frame;
        const int64_t frame_end = std::min(video_end, frame_begin + video.per_frame);
        unpack(moments + (video.first_frame + frame) * kMeasures * 2, context.of_frame);
        const Waves time(frame, video.frames);
        bool exists[kCosines];
        for (int m = 0; m < kCosines; ++m) exists[m] = cosine_exists(m, frame, video.frames, video.per_frame);
        for (; row < frame_end; ++row) {
          float values[kPadded] = {}, of_video[kPadded], of_frame[kPadded];
          std::copy_n(measures + row * kMeasures, kMeasures, values);
          scores(values, context.of_video, of_video);
          scores(values, context.of_frame, of_frame);
          float* to = row_values.data();
          if (parts.temporal) {
            to = put_cosines(0, kTemporalCosines, values, of_video, of_frame, exists, to);
            for (const int m : {kBack1, kBack2, kBack4, kAhead1}) *to++ = exists[m] ? 1.0f : 0.0f;
          }
          if (parts.appearance) {
            to = put_cosines(kTemporalCosines, kCosines, values, of_video, of_frame, exists, to);
            *to++ = exists[kNearMean] ? 1.0f : 0.0f;
            const bool zero = values[kLogNorm] == -INFINITY;
            *to++ = zero ? 0.0f : of_video[kLogNorm];
            *to++ = zero ? 0.0f : of_frame[kLogNorm];
          }
          if (parts.position) {
            const int64_t place = row - frame_begin;
            to = put_position(time, context.down[place / video.columns], context.right[place % video.columns], to);
          }
          std::copy_n(parts.features + row * parts.num_features, parts.num_features, to);
          round(row_values.data(), total_columns, out, row - begin);
        }
      }
      ++number;
    }
  });
}

}  // namespace score::cpu
