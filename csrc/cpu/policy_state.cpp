// policy_state: rows of the policy's state [LayerNorm(x) ; LayerNorm(x - previous x) ; features].
//
// The difference is formed before any product, in float32: where little moves, W x_t - W x_{t-1} would cancel to noise
// and the LayerNorm would blow that up.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace score::cpu {
namespace {

// LayerNorm without affine terms, as torch computes it: biased variance, epsilon under the root. row [width] float.
// False, and nothing written, where the squares are no floats.
template <typename Out>
SCORE_INLINE bool normalize(const float* row, int64_t width, float epsilon, Out* out) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += row[i];
  const float mean = sum / static_cast<float>(width);
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) squares += (row[i] - mean) * (row[i] - mean);
  // squares that underflow do not show beside epsilon, unless that is tiny itself
  if (!(squares <= std::numeric_limits<float>::max()) || (epsilon < 1e-20f && squares < 1e-30f)) return false;
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon);
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = from_float<Out>((row[i] - mean) * scale);
  return true;
}

// The same in double, of x or of x - previous where that is given.
template <typename In, typename Out>
SCORE_INLINE void wide_normalize(const In* x, const In* previous, int64_t width, float epsilon, Out* out) {
  const auto value = [&](int64_t i) {
    return static_cast<double>(to_float(x[i])) - (previous ? static_cast<double>(to_float(previous[i])) : 0.0);
  };
  double sum = 0.0, squares = 0.0;
  for (int64_t i = 0; i < width; ++i) sum += value(i);
  const double mean = sum / static_cast<double>(width);
  for (int64_t i = 0; i < width; ++i) squares += (value(i) - mean) * (value(i) - mean);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(epsilon));
  for (int64_t i = 0; i < width; ++i) out[i] = from_float<Out>(static_cast<float>((value(i) - mean) * scale));
}

// One row; previous is null in a first frame. scratch [width] float.
template <typename In, typename Out>
SCORE_INLINE void state_row(
    const In* x, const In* previous, int64_t width, const StateParts& parts, int64_t row, float* scratch, Out* out) {
  if (parts.token) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) scratch[i] = to_float(x[i]);
    if (!normalize(scratch, width, parts.epsilon, out)) wide_normalize<In>(x, nullptr, width, parts.epsilon, out);
    out += width;
  }
  if (parts.residual) {
    if (previous == nullptr) {
      std::fill(out, out + width, from_float<Out>(0.0f));
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) scratch[i] = to_float(x[i]) - to_float(previous[i]);
      if (!normalize(scratch, width, parts.epsilon, out)) wide_normalize(x, previous, width, parts.epsilon, out);
    }
    out += width;
  }
  const float* features = parts.features + row * parts.features_width;
  for (int64_t i = 0; i < parts.features_width; ++i) out[i] = from_float<Out>(features[i]);
}

using StateRow = void (*)(const void*, const void*, int64_t, const StateParts&, int64_t, float*, void*);

#define SCORE_STATE_ROW(name, In, Out)                                                                          \
  SCORE_CLONES void name(                                                                                       \
      const void* x, const void* previous, int64_t width, const StateParts& parts, int64_t row, float* scratch, \
      void* out) {                                                                                              \
    state_row(                                                                                                  \
        static_cast<const In*>(x), static_cast<const In*>(previous), width, parts, row, scratch,                \
        static_cast<Out*>(out));                                                                                \
  }
SCORE_STATE_ROW(f32_f32, float, float)
SCORE_STATE_ROW(f32_f16, float, Float16)
SCORE_STATE_ROW(f32_bf16, float, BFloat16)
SCORE_STATE_ROW(f16_f32, Float16, float)
SCORE_STATE_ROW(f16_f16, Float16, Float16)
SCORE_STATE_ROW(f16_bf16, Float16, BFloat16)
SCORE_STATE_ROW(bf16_f32, BFloat16, float)
SCORE_STATE_ROW(bf16_f16, BFloat16, Float16)
SCORE_STATE_ROW(bf16_bf16, BFloat16, BFloat16)
#undef SCORE_STATE_ROW

constexpr StateRow kStateRow[3][3] = {
    // [tokens' dtype][state's dtype], in the order of DType
    {f32_f32, f32_f16, f32_bf16},
    {f16_f32, f16_f16, f16_bf16},
    {bf16_f32, bf16_f16, bf16_bf16}};

int64_t item_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

}  // namespace

void policy_state(
    const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType out_dtype, void* out) {
  const StateRow write_row = kStateRow[static_cast<int>(batch.dtype)][static_cast<int>(out_dtype)];
  const int64_t row_bytes = batch.width * item_size(batch.dtype);
  const int64_t out_bytes = parts.columns(batch.width) * item_size(out_dtype);
  const char* tokens = static_cast<const char*>(batch.tokens);
  parallel_for(end - begin, 8, [&](int64_t range_begin, int64_t range_end) {
    std::vector<float> scratch(batch.width);
    const int32_t* cu = batch.cu_seqlens;
    int64_t video = std::upper_bound(cu, cu + batch.num_videos + 1, begin + range_begin) - cu - 1;
    for (int64_t i = range_begin; i < range_end; ++i) {
      const int64_t row = begin + i;
      while (row >= cu[video + 1]) ++video;
      const int64_t n = batch.tokens_per_frame[video];
      const char* x = tokens + row * row_bytes;
      const char* previous = row - cu[video] < n ? nullptr : x - n * row_bytes;
      write_row(x, previous, batch.width, parts, row, scratch.data(), static_cast<char*>(out) + i * out_bytes);
    }
  });
}

}  // namespace score::cpu
