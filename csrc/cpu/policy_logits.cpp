// policy_logits: the policy's network on [LayerNorm(x) ; LayerNorm(x - previous x) ; features], without its state.
//
// LayerNorm(z) W^T = (z W^T - mean(z) sum(W)) / std(z): the products are taken of z itself, slice by slice of its
// columns and while they are in the cache, and the sums that mean and std need on the way; a token is read once. The
// difference to the previous token is formed before any product: where little moves, W x_t - W x_{t-1} would cancel to
// noise.
//
// So would z W^T and mean(z) sum(W) where the mean is large beside the deviation. z is therefore x less the mean m of
// its first slice. However the rest is, (mean(x) - m)^2 times that slice's share of the columns is at most the variance
// of x: of what is then subtracted no more cancels than a few units in the last place.
//
// Each row is summed up by itself in an order that depends on the width alone: its logit has the same bits in any batch
// and with any number of threads. Products are fused multiply-adds where the processor has them (cmake sets
// -ffp-contract=fast for this file): nothing here is promised to equal the GPU's to the bit.
#include <algorithm>
#include <vector>

#include "gelu.h"
#include "kernels.h"
#include "normalized_rows.h"
#include "panels.h"
#include "parallel.h"
#include "simd.h"
#include "tiles.h"

namespace score::cpu {
namespace {

constexpr int64_t kBlockRows = 48;  // share what is read of the weights
constexpr int64_t kSlice = 256;     // columns: a panel of weights and a tile's rows fit the first cache
static_assert(kBlockRows % kTileRows == 0);

// The columns of the state that are a LayerNorm: of the token, or of its difference to the previous one.
struct Half {
  bool residual;
  std::vector<float> weight_sums;  // [H1]
};

// Everything that blocks of rows share. Biases are padded as the panels are.
struct Job {
  const TokenBatch& batch;
  const StateParts& parts;
  Panels w1, w2;
  std::vector<float> b1, b2, w_out;
  float b_out;
  std::vector<Half> halves;
  float* logits;

  bool two_layers() const { return w2.outputs > 0; }
};

// A thread's memory.
struct Scratch {
  std::vector<float> tile[2];      // [kBlockRows, kSlice], a slice of z
  std::vector<float> products[2];  // [kBlockRows, H1], z W^T
  std::vector<float> hidden1, hidden2;
  std::vector<RowSums> sums[2];
  std::vector<const void*> previous;                     // null in a first frame
  std::vector<float> state, tile_state, products_state;  // of rows that are taken in double, and their products

  explicit Scratch(const Job& job)
      : hidden1(kBlockRows * job.w1.width()), hidden2(kBlockRows * job.w2.width()), previous(kBlockRows) {
    for (size_t h = 0; h < job.halves.size(); ++h) {
      tile[h].resize(kBlockRows * kSlice);
      products[h].resize(kBlockRows * job.w1.width());
      sums[h].resize(kBlockRows);
    }
  }
};

// The first layer's sums of a row from its state, which policy_state takes in double: slow, and seldom.
template <int kLanes>
SCORE_INLINE void multiply_state(const Job& job, int64_t row, Scratch& scratch, float* hidden) {
  const int64_t columns = job.parts.columns(job.batch.width), width = job.w1.width();
  scratch.state.resize(columns);
  scratch.tile_state.assign(kTileRows * kSlice, 0.0f);
  scratch.products_state.assign(kTileRows * width, 0.0f);
  policy_state(job.batch, job.parts, row, row + 1, DType::kFloat32, scratch.state.data());
  for (int64_t begin = 0; begin < columns; begin += kSlice) {
    const int64_t end = std::min(begin + kSlice, columns);
    std::copy(scratch.state.begin() + begin, scratch.state.begin() + end, scratch.tile_state.begin());
    multiply<kLanes>(scratch.tile_state.data(), kSlice, 1, job.w1, begin, end - begin, scratch.products_state.data());
  }
  for (int64_t j = 0; j < width; ++j) hidden[j] = job.b1[j] + scratch.products_state[j];
}

// Asks for columns begin .. end of a row, or of none, which nobody waits for.
template <typename In>
SCORE_INLINE void prefetch(const In* row, int64_t begin, int64_t end) {
  constexpr int64_t kLine = 64 / sizeof(In);
  if (row == nullptr) return;
  for (int64_t i = begin; i < end; i += kLine) __builtin_prefetch(row + i);
}

// Products and sums of both halves of rows begin .. begin + rows.
template <int kLanes, typename In>
SCORE_INLINE void multiply_tokens(const Job& job, int64_t begin, int64_t rows, Scratch& scratch) {
  const int64_t width = job.batch.width;
  const In* tokens = static_cast<const In*>(job.batch.tokens) + begin * width;
  for (size_t h = 0; h < job.halves.size(); ++h)
    std::fill(scratch.products[h].begin(), scratch.products[h].end(), 0.0f);
  const bool any_previous =
      std::any_of(scratch.previous.begin(), scratch.previous.begin() + rows, [](const void* row) { return row; });
  const int64_t tiles = multiply_tiles(rows, job.w1);
  for (int64_t first = 0; first < width; first += kSlice) {
    const int64_t last = std::min(first + kSlice, width), next_last = std::min(last + kSlice, width);
    for (size_t h = 0; h < job.halves.size(); ++h) {
      const bool residual = job.halves[h].residual;
      if (residual && !any_previous) continue;
      for (int64_t row = 0; row < rows; ++row) {
        float* tile = scratch.tile[h].data() + row * kSlice;
        const In* previous = residual ? static_cast<const In*>(scratch.previous[row]) : nullptr;
        if (residual && previous == nullptr) {
          scratch.sums[h][row] = {0.0f, 0.0, 0.0};
          std::fill(tile, tile + (last - first), 0.0f);
        } else {
          fill_tile<kLanes>(tokens + row * width, previous, first, last, scratch.sums[h][row], tile);
        }
      }
      // The next slice of the rows comes while this one is multiplied: waiting for it was a fifth of the time.
      int64_t tile = 0, row = 0;
      const auto prefetch_some = [&] {
        for (const int64_t end = rows * ++tile / tiles; row < end; ++row) {
          if (h == 0) prefetch(tokens + row * width, last, next_last);
          if (residual) prefetch(static_cast<const In*>(scratch.previous[row]), last, next_last);
        }
      };
      multiply<kLanes>(
          scratch.tile[h].data(), kSlice, rows, job.w1, static_cast<int64_t>(h) * width + first, last - first,
          scratch.products[h].data(), prefetch_some);
    }
  }
}

// The sums of the first layer, before its GELU, into scratch.hidden1.
template <int kLanes, typename In>
SCORE_INLINE void first_layer(const Job& job, int64_t begin, int64_t rows, Scratch& scratch) {
  multiply_tokens<kLanes, In>(job, begin, rows, scratch);
  const int64_t outputs = job.w1.width(), width = job.batch.width;
  const int64_t num_features = job.parts.features_width;
  const int64_t features_begin = static_cast<int64_t>(job.halves.size()) * width;
  for (int64_t row = 0; row < rows; ++row) {
    std::copy(job.b1.begin(), job.b1.end(), scratch.hidden1.begin() + row * outputs);
  }
  for (int64_t first = 0; first < num_features; first += kSlice) {
    const int64_t columns = std::min(kSlice, num_features - first);
    std::vector<float>& tile = scratch.tile_state;
    tile.assign(kBlockRows * kSlice, 0.0f);
    for (int64_t row = 0; row < rows; ++row) {
      const float* features = job.parts.features + (begin + row) * num_features + first;
      std::copy(features, features + columns, tile.begin() + row * kSlice);
    }
    multiply<kLanes>(tile.data(), kSlice, rows, job.w1, features_begin + first, columns, scratch.hidden1.data());
  }
  for (int64_t row = 0; row < rows; ++row) {
    float* hidden = scratch.hidden1.data() + row * outputs;
    bool exact = true;
    for (size_t h = 0; h < job.halves.size(); ++h) {
      if (job.halves[h].residual && scratch.previous[row] == nullptr) continue;
      float mean, scale;
      exact &= finish_sums(scratch.sums[h][row], width, job.parts.epsilon, mean, scale);
      const float* products = scratch.products[h].data() + row * outputs;
      const float* weight_sums = job.halves[h].weight_sums.data();
#pragma omp simd
      for (int64_t j = 0; j < outputs; ++j) hidden[j] += (products[j] - mean * weight_sums[j]) * scale;
    }
    if (!exact) multiply_state<kLanes>(job, begin + row, scratch, hidden);
  }
}

template <int kLanes, typename In>
SCORE_INLINE void block_logits(const Job& job, int64_t begin, int64_t rows, Scratch& scratch) {
  first_layer<kLanes, In>(job, begin, rows, scratch);
  gelu(scratch.hidden1.data(), rows * job.w1.width());
  const float* hidden = scratch.hidden1.data();
  int64_t stride = job.w1.width();
  if (job.two_layers()) {
    const int64_t outputs = job.w2.width();
    for (int64_t row = 0; row < rows; ++row) {
      std::copy(job.b2.begin(), job.b2.end(), scratch.hidden2.begin() + row * outputs);
    }
    multiply<kLanes>(hidden, stride, rows, job.w2, 0, job.w2.inputs, scratch.hidden2.data());
    gelu(scratch.hidden2.data(), rows * outputs);
    hidden = scratch.hidden2.data();
    stride = outputs;
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = hidden + row * stride;
    const float* weights = job.w_out.data();
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < stride; ++j) sum += from[j] * weights[j];
    job.logits[begin + row] = sum + job.b_out;
  }
}

using Block = void (*)(const Job&, int64_t, int64_t, Scratch&);

// Registers of as many lanes as the instruction set has. Clones of one function (SCORE_CLONES) would not do: how many
// sums stay in registers is part of the code.
#define SCORE_BLOCK(name, lanes, attributes)                                            \
  attributes void name(const Job& job, int64_t begin, int64_t rows, Scratch& scratch) { \
    switch (job.batch.dtype) {                                                          \
      case DType::kFloat32:                                                             \
        return block_logits<lanes, float>(job, begin, rows, scratch);                   \
      case DType::kFloat16:                                                             \
        return block_logits<lanes, Float16>(job, begin, rows, scratch);                 \
      case DType::kBFloat16:                                                            \
        return block_logits<lanes, BFloat16>(job, begin, rows, scratch);                \
    }                                                                                   \
  }
#define SCORE_TARGET(isa) __attribute__((target("arch=" isa)))

struct Path {
  Block block;
  int lanes;
};

SCORE_BLOCK(block_of_4, 4, )
#if defined(SCORE_HAS_CLONES)
SCORE_BLOCK(block_of_8, 8, SCORE_TARGET("x86-64-v3"))
SCORE_BLOCK(block_of_16, 16, SCORE_TARGET("x86-64-v4"))

Path choose_path() {
  if (__builtin_cpu_supports("x86-64-v4")) return {block_of_16, 16};
  if (__builtin_cpu_supports("x86-64-v3")) return {block_of_8, 8};
  return {block_of_4, 4};
}
#else
Path choose_path() { return {block_of_4, 4}; }
#endif
#undef SCORE_BLOCK
#undef SCORE_TARGET

int64_t item_size(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

Job make_job(
    const TokenBatch& batch, const StateParts& parts, const NetworkLayers& layers, int64_t panel, float* logits) {
  const DType dtype = layers.dtype;
  const int64_t width = batch.width;
  Job job{batch, parts, panels_of(layers.w1, dtype, layers.hidden1, parts.columns(width), panel), {}, {}, {}, {}, 0.0f,
          {},    logits};
  job.b1 = floats(layers.b1, dtype, layers.hidden1, job.w1.width());
  int64_t hidden = layers.hidden1;
  if (layers.w2 != nullptr) {
    hidden = layers.hidden2;
    job.w2 = panels_of(layers.w2, dtype, layers.hidden2, layers.hidden1, panel);
    job.b2 = floats(layers.b2, dtype, layers.hidden2, job.w2.width());
  }
  job.w_out = floats(layers.w_out, dtype, hidden, padded(hidden, panel));
  job.b_out = floats(layers.b_out, dtype, 1, 1)[0];
  for (const bool residual : {false, true}) {
    if (!(residual ? parts.residual : parts.token)) continue;
    const int64_t begin = static_cast<int64_t>(job.halves.size()) * width;
    job.halves.push_back({residual, weight_sums(job.w1, begin, begin + width)});
  }
  return job;
}

}  // namespace

void policy_logits(const TokenBatch& batch, const StateParts& parts, const NetworkLayers& layers, float* logits) {
  static const Path path = choose_path();
  if (batch.num_tokens == 0) return;
  const Job job = make_job(batch, parts, layers, 2 * path.lanes, logits);
  const int64_t row_bytes = batch.width * item_size(batch.dtype);
  const char* tokens = static_cast<const char*>(batch.tokens);
  const int32_t* cu = batch.cu_seqlens;
  // Tiles of the last rows are whole: of what no row wrote, nothing is read.
  parallel_for(batch.num_tokens, kBlockRows, [&](int64_t range_begin, int64_t range_end) {
    Scratch scratch(job);
    int64_t video = std::upper_bound(cu, cu + batch.num_videos + 1, range_begin) - cu - 1;
    for (int64_t begin = range_begin; begin < range_end; begin += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, range_end - begin);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = begin + i;
        while (row >= cu[video + 1]) ++video;
        const int64_t in_frame = batch.tokens_per_frame[video];
        scratch.previous[i] = row - cu[video] < in_frame ? nullptr : tokens + (row - in_frame) * row_bytes;
      }
      path.block(job, begin, rows, scratch);
    }
  });
}

}  // namespace score::cpu
