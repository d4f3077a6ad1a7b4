#include "topk.h"

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "parallel.h"

namespace score::cpu {
namespace {

constexpr int kDigitBits = 11;
constexpr int kBuckets = 1 << kDigitBits;
constexpr int kShifts[] = {21, 10, 0};  // 11 + 11 + 10 bits, from the top
constexpr int64_t kGrain = 1 << 16;     // tokens worth a thread of their own

using Histogram = std::array<int64_t, kBuckets>;

int64_t digit(uint32_t rank, int shift) { return (rank >> shift) & (kBuckets - 1); }

// Scores crowd into a few exponents: four tables in turn, so that equal neighbours do not wait for each other.
Histogram count_digits(const uint32_t* rank, int64_t length, int shift) {
  std::vector<std::array<uint32_t, kBuckets>> tables(4);
  const int64_t body = length - length % 4;
  for (int64_t i = 0; i < body; i += 4) {
    for (int64_t lane = 0; lane < 4; ++lane) ++tables[lane][digit(rank[i + lane], shift)];
  }
  for (int64_t i = body; i < length; ++i) ++tables[0][digit(rank[i], shift)];
  Histogram total;
  for (int64_t bucket = 0; bucket < kBuckets; ++bucket) {
    total[bucket] = int64_t{tables[0][bucket]} + tables[1][bucket] + tables[2][bucket] + tables[3][bucket];
  }
  return total;
}

// What is kept: every rank above `rank`, and the first `ties` that equal it.
struct Threshold {
  uint32_t rank;
  int64_t ties;
  bool all_ties;  // no rank that equals it is dropped: the usual case
};

// Narrows the rank of the last kept token digit by digit, each time looking only at those that share the digits so far.
Threshold find_threshold(const uint32_t* rank, int64_t length, int64_t keep) {
  std::unique_ptr<uint32_t[]> candidates;
  const uint32_t* from = rank;
  int64_t remaining = keep;
  uint32_t prefix = 0;
  for (int level = 0;; ++level) {
    const int shift = kShifts[level];
    const Chunks chunks(length, kGrain);
    std::vector<Histogram> histograms(chunks.count());
    chunks.run([&](int64_t chunk, int64_t begin, int64_t end) {
      histograms[chunk] = count_digits(from + begin, end - begin, shift);
    });
    const auto total = [&](int64_t bucket) {
      int64_t sum = 0;
      for (const Histogram& histogram : histograms) sum += histogram[bucket];
      return sum;
    };
    int64_t bucket = kBuckets - 1;
    int64_t wanted = total(bucket);
    for (; wanted < remaining; wanted = total(--bucket)) remaining -= wanted;
    prefix |= static_cast<uint32_t>(bucket) << shift;
    if (shift == 0) return {prefix, remaining, wanted == remaining};

    auto next = std::make_unique_for_overwrite<uint32_t[]>(wanted);
    chunks.run([&](int64_t chunk, int64_t begin, int64_t) {
      uint32_t* out = next.get();
      for (int64_t before = 0; before < chunk; ++before) out += histograms[before][bucket];
      const int64_t own = histograms[chunk][bucket];
      for (int64_t i = begin, count = 0; count < own; ++i) {
        out[count] = from[i];  // overwritten by the next rank unless this one is a candidate
        count += digit(from[i], shift) == bucket;
      }
    });
    candidates = std::move(next);
    from = candidates.get();
    length = wanted;
  }
}

// Emits kept rows from `begin` on until there are `count`, among them the first `ties` that equal the threshold. Every
// row is written, and overwritten by the next one unless it is kept: no branch to mispredict.
void emit(
    const uint32_t* rank, int64_t begin, const Threshold& threshold, int64_t count, int64_t ties, int64_t base,
    int64_t* index) {
  const uint32_t limit = threshold.rank;
  if (threshold.all_ties) {
    for (int64_t i = begin, written = 0; written < count; ++i) {
      index[written] = base + i;
      written += rank[i] >= limit;
    }
    return;
  }
  for (int64_t i = begin, written = 0, tied = 0; written < count; ++i) {
    const bool equal = rank[i] == limit;
    index[written] = base + i;
    written += (rank[i] > limit) | (equal & (tied < ties));
    tied += equal;
  }
}

struct Counts {
  int64_t above;
  int64_t equal;
};

Counts count_kept(const uint32_t* rank, int64_t begin, int64_t end, uint32_t threshold) {
  int64_t above = 0, equal = 0;
#pragma omp simd reduction(+ : above, equal)
  for (int64_t i = begin; i < end; ++i) {
    above += rank[i] > threshold;
    equal += rank[i] == threshold;
  }
  return {above, equal};
}

}  // namespace

void top_rows(const uint32_t* rank, int64_t length, int64_t keep, int64_t base, int64_t* index) {
  if (keep == 0) return;
  if (keep == length) {
    for (int64_t i = 0; i < length; ++i) index[i] = base + i;
    return;
  }
  const Threshold threshold = find_threshold(rank, length, keep);
  const Chunks chunks(length, kGrain);
  if (chunks.count() == 1) return emit(rank, 0, threshold, keep, threshold.ties, base, index);

  std::vector<Counts> counts(chunks.count());
  chunks.run(
      [&](int64_t chunk, int64_t begin, int64_t end) { counts[chunk] = count_kept(rank, begin, end, threshold.rank); });
  chunks.run([&](int64_t chunk, int64_t begin, int64_t) {
    int64_t offset = 0, ties_left = threshold.ties;
    for (int64_t before = 0; before < chunk; ++before) {
      const int64_t ties = std::min(ties_left, counts[before].equal);
      offset += counts[before].above + ties;
      ties_left -= ties;
    }
    const int64_t ties = std::min(ties_left, counts[chunk].equal);
    emit(rank, begin, threshold, counts[chunk].above + ties, ties, base, index + offset);
  });
}

}  // namespace score::cpu
