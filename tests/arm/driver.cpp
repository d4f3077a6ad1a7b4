// Runs every CPU kernel on made-up batches and prints what comes out, a line for each array: its name, whether another
// machine must give the same bits ("exact") or the same numbers ("close"), and its values. tools/arm.sh compares Arm's
// lines with this machine's. No torch: the kernels take none, and parallel_ranges below stands in for its thread pool.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace score::cpu {

void parallel_ranges(int64_t end, int64_t grain, RangeFunction function, void* context) {
  for (int64_t begin = 0; begin < end; begin += grain) function(begin, std::min(begin + grain, end), context);
}
int64_t num_threads() { return 2; }

}  // namespace score::cpu

namespace {

using namespace score;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Whole multiples of 1/256 in [-8, 8): the same on every machine.
float next_number() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(static_cast<int64_t>(state >> 52) - 2048) / 256.0f;
}

std::vector<float> numbers(int64_t count) {
  std::vector<float> made(count);
  for (float& value : made) value = next_number();
  return made;
}

void print(double value) { std::printf(" %.9g", value); }
void print(int64_t value) { std::printf(" %" PRId64, value); }

template <typename Shown, typename Value>
void show(const std::string& name, const char* kind, const std::vector<Value>& values) {
  std::printf("%s %s", name.c_str(), kind);
  for (const Value value : values) print(static_cast<Shown>(value));
  std::printf("\n");
}

// Three videos, the second without tokens; tokens of any dtype, and scores with what is odd among them.
struct Batch {
  int64_t width;
  std::vector<int32_t> cu_seqlens{0, 4 * 6, 4 * 6, 4 * 6 + 7 * 12}, per_frame{6, 1, 12}, columns{3, 1, 4},
      keep{5, 0, 31};
  int64_t length = cu_seqlens.back(), total_keep = 36;
  PackedBatch packed{cu_seqlens.data(), 3, length};
  std::vector<float> tokens = numbers(length * width), scores = numbers(length);
};

template <typename T>
void with_tokens(const Batch& batch, DType dtype, const std::string& suffix) {
  std::vector<T> tokens;
  for (const float value : batch.tokens) tokens.push_back(cpu::from_float<T>(value));
  const TokenBatch of{tokens.data(),          dtype, batch.width, batch.cu_seqlens.data(),
                      batch.per_frame.data(), 3,     batch.length};
  for (const Metric metric : {Metric::kCosine, Metric::kL2}) {
    std::vector<float> out(batch.length);
    cpu::surprise(of, metric, kInfinity, out.data());
    show<double>("surprise" + suffix + (metric == Metric::kL2 ? "-l2" : "-cosine"), "close", out);
  }
  const StateParts parts{true, true, batch.scores.data(), 1, 1e-5f};
  std::vector<float> state(batch.length * parts.columns(batch.width));
  cpu::policy_state(of, parts, 0, batch.length, DType::kFloat32, state.data());
  show<double>("policy_state" + suffix, "close", state);
  const RelativeBatch relative{of, batch.columns.data(), 4 + 7};
  std::vector<float> measures(batch.length * kMeasures);
  std::vector<double> moments((4 + 7 + 3) * kMeasures * 2);
  cpu::relative_measures(relative, measures.data(), moments.data());
  show<double>("relative_measures" + suffix, "close", measures);
  const std::vector<int64_t> index{0, 3, batch.length - 1};
  std::vector<T> rows(index.size() * batch.width);
  cpu::gather(tokens.data(), batch.width * sizeof(T), index.data(), index.size(), rows.data());
  std::vector<float> gathered;
  for (const T value : rows) gathered.push_back(cpu::to_float(value));
  show<double>("gather" + suffix, "exact", gathered);
}

void with_scores(const Batch& batch, std::vector<float> scores, const std::string& suffix) {
  const int64_t samples = 5, k = batch.total_keep;
  for (const SelectionRule rule : {SelectionRule::kTopK, SelectionRule::kSystematic}) {
    std::vector<int64_t> index(k);
    cpu::select(scores.data(), batch.packed, batch.keep.data(), rule, 0.5, index.data());
    show<int64_t>((rule == SelectionRule::kTopK ? "topk" : "systematic") + suffix, "exact", index);
  }
  const std::vector<int64_t> seed{-77};
  std::vector<int64_t> index(samples * k), order(samples * k);
  cpu::gumbel_topk(
      scores.data(), batch.packed, batch.keep.data(), k, samples, seed.data(), 1, index.data(), order.data());
  show<int64_t>("gumbel_topk" + suffix, "exact", order);
  std::vector<float> log_prob(samples * 3), ones(samples * 3, 1.0f), grad(batch.length);
  cpu::plackett_luce_log_prob(
      scores.data(), batch.packed, batch.keep.data(), k, samples, order.data(), log_prob.data());
  show<double>("plackett_luce" + suffix, "close", log_prob);
  cpu::plackett_luce_log_prob_backward(
      ones.data(), scores.data(), batch.packed, batch.keep.data(), k, samples, order.data(), grad.data());
  show<double>("plackett_luce_backward" + suffix, "close", grad);
  bool mask[5 * 108];
  std::vector<int32_t> count(samples * 3);
  cpu::sample_bernoulli(scores.data(), batch.packed, samples, seed.data(), 1, mask, log_prob.data(), count.data());
  show<int64_t>("bernoulli" + suffix, "exact", std::vector<int64_t>(mask, mask + samples * batch.length));
  show<double>("bernoulli_log_prob" + suffix, "close", log_prob);
}

}  // namespace

int main() {
  for (const int64_t width : {1, 7, 40, 257}) {
    const Batch batch{width};
    const std::string suffix = std::string("-").append(std::to_string(width));
    with_tokens<float>(batch, DType::kFloat32, suffix + "-f32");
    with_tokens<cpu::Float16>(batch, DType::kFloat16, suffix + "-f16");
    with_tokens<cpu::BFloat16>(batch, DType::kBFloat16, suffix + "-bf16");
    with_scores(batch, batch.scores, suffix);
    std::vector<float> equal(batch.length, 0.25f);
    with_scores(batch, equal, suffix + "-equal");
  }
  Batch odd{1};
  odd.scores[3] = odd.scores[30] = std::nanf("");
  odd.scores[5] = kInfinity;
  odd.scores[40] = odd.scores[41] = -kInfinity;
  std::vector<int64_t> index(odd.total_keep);
  for (const SelectionRule rule : {SelectionRule::kTopK, SelectionRule::kSystematic}) {
    cpu::select(odd.scores.data(), odd.packed, odd.keep.data(), rule, 0.5, index.data());
    show<int64_t>("odd", "exact", index);
  }
}
