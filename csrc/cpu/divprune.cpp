// divprune: farthest-first traversal of each video's tokens by cosine distance.
//
// A token's distance to the nearest kept one only falls as more are kept, so a distance that is out of date is a bound:
// tokens wait in a heap by their bounds, and only those at its top are compared with what was kept since, until they
// fall below the best that is up to date. Which tokens are kept does not depend on which were compared when. Where
// tokens have weights, distances count times these.
#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "divprune_rows.h"
#include "kept.h"
#include "kernels.h"
#include "parallel.h"

namespace score::cpu {
namespace {

constexpr int64_t kMostTogether = 512;       // tokens compared at a time
constexpr int64_t kKeptFloats = 1 << 16;     // of kept rows that several tokens are compared with, from the cache
constexpr int64_t kGrainProducts = 1 << 18;  // multiplications worth a thread of their own
// There are thousands of rounds, and where other work keeps the cores each waits milliseconds for a thread that has not
// begun. A round is slow if it takes longer than this, in nanoseconds, and one nanosecond a multiplication; after so
// many in a row this thread goes on by itself.
constexpr int64_t kPatience = 2'000'000;
constexpr int kSlowRounds = 3;
constexpr int64_t kBlocksTogether = 1024;  // partial sums of directions that are held at a time

#define SCORE_READ(name, T)                                                                      \
  SCORE_CLONES RowSquare read_##name(const void* x, int64_t width, int64_t padded, float* row) { \
    return float_row(static_cast<const T*>(x), width, padded, row);                              \
  }
SCORE_READ(f32, float)
SCORE_READ(f16, Float16)
SCORE_READ(bf16, BFloat16)
#undef SCORE_READ

#define SCORE_COMPARE(name, T)                                                                                        \
  SCORE_CLONES Nearest compare_##name(                                                                                \
      const void* x, float square, int64_t width, const KeptRows& kept, int64_t end, float enough, Nearest nearest) { \
    return compare_row(static_cast<const T*>(x), square, width, kept, end, enough, nearest);                          \
  }
SCORE_COMPARE(f32, float)
SCORE_COMPARE(bf16, BFloat16)
#undef SCORE_COMPARE

SCORE_CLONES float row_product(const float* a, const float* b, int64_t padded) {
  float product;
  row_products<float, 1>(a, padded, b, 0, &product);
  return product;
}

SCORE_CLONES void add_scaled(const float* row, float scale, int64_t width, float* sum) {
#pragma omp simd
  for (int64_t d = 0; d < width; ++d) sum[d] += row[d] * scale;
}

SCORE_CLONES void add_wide(const float* from, int64_t width, double* sum) {
#pragma omp simd
  for (int64_t d = 0; d < width; ++d) sum[d] += static_cast<double>(from[d]);
}

// The tokens of one video.
class Rows {
 public:
  Rows(const TokenBatch& batch, const VideoRange& range)
      : tokens_(static_cast<const char*>(batch.tokens)),
        dtype_(batch.dtype),
        begin_(range.begin),
        length_(range.length()),
        width_(batch.width),
        padded_((batch.width + kSumLanes - 1) / kSumLanes * kSumLanes),
        squares_(range.length()) {}

  int64_t length() const { return length_; }
  int64_t padded() const { return padded_; }
  float square(int64_t row) const { return squares_[row].square; }

  // As floats, [padded].
  RowSquare read(int64_t row, float* out) const {
    switch (dtype_) {
      case DType::kFloat32:
        return read_f32(at(row), width_, padded_, out);
      case DType::kFloat16:
        return read_f16(at(row), width_, padded_, out);
      default:
        return read_bf16(at(row), width_, padded_, out);
    }
  }

  // Takes the sum of squares of every row; returns the sum of all directions, [padded].
  std::vector<float> sum_directions() {
    std::vector<double> sum(padded_, 0.0);
    const int64_t blocks = (length_ + kMeanRows - 1) / kMeanRows;
    std::vector<float> sums(std::min(blocks, kBlocksTogether) * padded_);
    const int64_t grain = std::max<int64_t>(1, kGrainProducts / (kMeanRows * padded_));
    for (int64_t first = 0; first < blocks; first += kBlocksTogether) {
      const int64_t count = std::min(kBlocksTogether, blocks - first);
      std::fill_n(sums.begin(), count * padded_, 0.0f);
      parallel_for(count, grain, [&](int64_t begin, int64_t end) {
        std::vector<float> row(padded_);
        for (int64_t block = begin; block < end; ++block) {
          const int64_t from = (first + block) * kMeanRows, to = std::min(from + kMeanRows, length_);
          for (int64_t i = from; i < to; ++i) {
            squares_[i] = read(i, row.data());
            add_scaled(row.data(), direction_scale(squares_[i].square), padded_, sums.data() + block * padded_);
          }
        }
      });
      for (int64_t block = 0; block < count; ++block) add_wide(sums.data() + block * padded_, padded_, sum.data());
    }
    return {sum.begin(), sum.end()};
  }

  // As compare_row; scratch is [padded].
  Nearest compare(
      int64_t row, const KeptRows& kept, int64_t end, float enough, const Nearest& nearest, float* scratch) const {
    const auto [square, is_rescaled] = squares_[row];
    if (square == 0.0f) return {std::min(nearest.distance, 1.0f), end};
    if (dtype_ == DType::kFloat32 && !is_rescaled) {
      return compare_f32(at(row), square, width_, kept, end, enough, nearest);
    }
    if (dtype_ == DType::kBFloat16 && !is_rescaled) {
      return compare_bf16(at(row), square, width_, kept, end, enough, nearest);
    }
    read(row, scratch);
    return compare_f32(scratch, square, padded_, kept, end, enough, nearest);
  }

 private:
  const void* at(int64_t row) const {
    return tokens_ + (begin_ + row) * width_ * (dtype_ == DType::kFloat32 ? sizeof(float) : sizeof(uint16_t));
  }

  const char* tokens_;
  DType dtype_;
  int64_t begin_, length_, width_, padded_;
  std::vector<RowSquare> squares_;
};

// The tokens of one video, taken one by one.
class Traversal {
 public:
  // weights: of the video's tokens, or null.
  Traversal(const TokenBatch& batch, const VideoRange& range, int64_t keep, const float* weights)
      : rows_(batch, range),
        weights_(weights),
        kept_(std::make_unique_for_overwrite<float[]>(keep * rows_.padded())),
        kept_squares_(keep),
        nearest_(rows_.length(), {std::numeric_limits<float>::infinity(), 0}) {}

  // order [keep]: numbers of rows within the video, as they are taken.
  void run(int64_t keep, int64_t* order) {
    order[0] = furthest_from_mean();
    take(order[0]);
    fill_heap(order[0]);
    for (int64_t at = 1; at < keep; ++at) {
      order[at] = next();
      take(order[at]);
    }
  }

 private:
  int64_t furthest_from_mean() {
    const std::vector<float> mean = rows_.sum_directions();
    const float mean_square = row_product(mean.data(), mean.data(), rows_.padded());
    std::vector<uint64_t> keys(rows_.length());
    const int64_t grain = std::max<int64_t>(1, kGrainProducts / rows_.padded());
    parallel_for(rows_.length(), grain, [&](int64_t begin, int64_t end) {
      std::vector<float> row(rows_.padded());
      for (int64_t i = begin; i < end; ++i) {
        rows_.read(i, row.data());
        const float product = row_product(row.data(), mean.data(), rows_.padded());
        const float square = rows_.square(i);
        const float distance = weights_ == nullptr ? distance_from_mean(product, square)
                                                   : score_of(i, cosine_distance(product, square, mean_square));
        keys[i] = distance_key(distance, static_cast<uint32_t>(i));
      }
    });
    return row_of_key(*std::max_element(keys.begin(), keys.end()));
  }

  void take(int64_t row) {
    kept_squares_[num_kept_] = rows_.read(row, kept_.get() + num_kept_ * rows_.padded()).square;
    ++num_kept_;
  }

  void fill_heap(int64_t first) {
    std::vector<int64_t> all;
    for (int64_t row = 0; row < rows_.length(); ++row) {
      if (row != first) all.push_back(row);
    }
    compare(all, 0.0f);
    for (const int64_t row : all) heap_.push_back(key_of(row));
    std::make_heap(heap_.begin(), heap_.end());
  }

  // The row whose nearest kept one is furthest, out of the heap.
  int64_t next() {
    uint64_t best = 0;  // of those that have been compared with all kept ones
    std::vector<int64_t> behind;
    for (int64_t most = 1;; most = std::min(2 * most, kMostTogether)) {
      behind.clear();
      while (!heap_.empty() && heap_.front() > best && static_cast<int64_t>(behind.size()) < most) {
        const uint64_t key = pop();
        if (is_up_to_date(row_of_key(key))) {
          replace_best(key, best);
        } else {
          behind.push_back(row_of_key(key));
        }
      }
      if (behind.empty()) return row_of_key(best);
      compare(behind, best == 0 ? 0.0f : score_of(row_of_key(best), nearest_[row_of_key(best)].distance));
      for (const int64_t row : behind) {
        const uint64_t key = key_of(row);
        if (key > best && is_up_to_date(row)) {
          replace_best(key, best);
        } else {
          push(key);
        }
      }
    }
  }

  // Compares rows with kept ones until they are up to date or their scores below `enough`. A few kept rows at a time,
  // which then come from the cache for all rows but the first.
  void compare(const std::vector<int64_t>& rows, float enough) {
    if (rows.empty()) return;
    const KeptRows kept{kept_.get(), kept_squares_.data(), rows_.padded()};
    const int64_t together = std::max<int64_t>(4, kKeptFloats / rows_.padded());
    int64_t oldest = num_kept_;
    for (const int64_t row : rows) oldest = std::min(oldest, nearest_[row].compared);
    const int64_t products = (num_kept_ - oldest) * rows_.padded(), count = static_cast<int64_t>(rows.size());
    const auto body = [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(rows_.padded());
      for (int64_t first = oldest; first < num_kept_; first += together) {
        const int64_t last = std::min(first + together, num_kept_);
        for (int64_t i = begin; i < end; ++i) {
          Nearest& nearest = nearest_[rows[i]];
          const float near_enough = distance_of_score(rows[i], enough);
          if (nearest.compared >= last || nearest.distance < near_enough) continue;
          nearest = rows_.compare(rows[i], kept, last, near_enough, nearest, scratch.data());
        }
      }
    };
    const int64_t grain = std::max<int64_t>(1, kGrainProducts / products);
    if (slow_rounds_ >= kSlowRounds || count <= grain) return body(0, count);
    const auto start = std::chrono::steady_clock::now();
    parallel_for(count, grain, body);
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - start;
    slow_rounds_ = took.count() > kPatience + count * products ? slow_rounds_ + 1 : 0;
  }

  // No score is below 0.
  bool is_up_to_date(int64_t row) const {
    return nearest_[row].compared == num_kept_ || score_of(row, nearest_[row].distance) == 0.0f;
  }

  uint64_t key_of(int64_t row) const {
    return distance_key(score_of(row, nearest_[row].distance), static_cast<uint32_t>(row));
  }

  float score_of(int64_t row, float distance) const {
    return weights_ == nullptr ? distance : weighted(distance, weights_[row]);
  }

  // A distance whose score is below this one whatever the rounding, so that a row that falls below it is not asked
  // again until the best one has been taken.
  float distance_of_score(int64_t row, float score) const {
    if (weights_ == nullptr || score == 0.0f) return score;
    const float weight = std::min(weights_[row], kMostWeight);
    return weight > 0.0f ? score / weight * (1.0f - 1e-6f) : std::numeric_limits<float>::infinity();
  }

  void replace_best(uint64_t key, uint64_t& best) {
    if (best != 0) push(best);
    best = key;
  }

  void push(uint64_t key) {
    heap_.push_back(key);
    std::push_heap(heap_.begin(), heap_.end());
  }

  uint64_t pop() {
    std::pop_heap(heap_.begin(), heap_.end());
    const uint64_t key = heap_.back();
    heap_.pop_back();
    return key;
  }

  Rows rows_;
  const float* weights_;
  std::unique_ptr<float[]> kept_;  // [keep, padded]
  std::vector<float> kept_squares_;
  int64_t num_kept_ = 0;
  int slow_rounds_ = 0;  // in a row
  std::vector<Nearest> nearest_;
  std::vector<uint64_t> heap_;  // keys of all rows that are not kept, by what is known of their distances
};

}  // namespace

void divprune(const TokenBatch& batch, const int32_t* keep, bool ordered, const float* weights, int64_t* index) {
  const PackedBatch packed{batch.cu_seqlens, batch.num_videos, batch.num_tokens};
  const std::vector<int64_t> first = kept_begins(keep, batch.num_videos);
  parallel_for(batch.num_videos, 1, [&](int64_t begin, int64_t end) {
    for (int64_t video = begin; video < end; ++video) {
      const VideoRange range = video_range(packed, video);
      int64_t* const rows = index + first[video];
      if (keep[video] == 0) continue;
      if (keep[video] == range.length() && !ordered) {
        std::iota(rows, rows + range.length(), range.begin);
        continue;
      }
      const float* const own = weights == nullptr ? nullptr : weights + range.begin;
      Traversal(batch, range, keep[video], own).run(keep[video], rows);
      for (int64_t i = 0; i < keep[video]; ++i) rows[i] += range.begin;
      if (!ordered) std::sort(rows, rows + keep[video]);
    }
  });
}

}  // namespace score::cpu
