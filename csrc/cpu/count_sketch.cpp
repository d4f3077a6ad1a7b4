// count_sketch: every W-th column of a row added up, with signs.
#include <algorithm>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "score/column_sign.h"
#include "simd.h"

namespace score::cpu {
namespace {

template <typename T>
SCORE_CLONES void add_columns(const T* row, const float* signs, int64_t count, float* sums) {
#pragma omp simd
  for (int64_t column = 0; column < count; ++column) sums[column] += signs[column] * to_float(row[column]);
}

template <typename T>
void sketch(const TokenMatrix& tokens, int64_t width, float* out) {
  std::vector<float> signs(static_cast<size_t>(tokens.width));
  for (int64_t column = 0; column < tokens.width; ++column) signs[column] = column_sign(column);
  const T* from = static_cast<const T*>(tokens.data);
  const int64_t grain = std::max<int64_t>(1, (int64_t{64} << 10) / (tokens.width + width));
  parallel_for(tokens.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* const sums = out + row * width;
      std::fill_n(sums, width, 0.0f);
      for (int64_t first = 0; first < tokens.width; first += width) {
        const int64_t count = std::min(width, tokens.width - first);
        add_columns(from + row * tokens.width + first, signs.data() + first, count, sums);
      }
    }
  });
}

}  // namespace

void count_sketch(const TokenMatrix& tokens, int64_t width, float* out) {
  switch (tokens.dtype) {
    case DType::kFloat32:
      return sketch<float>(tokens, width, out);
    case DType::kFloat16:
      return sketch<Float16>(tokens, width, out);
    case DType::kBFloat16:
      return sketch<BFloat16>(tokens, width, out);
  }
}

}  // namespace score::cpu
