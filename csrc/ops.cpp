// Every op's schema, and the CPU registrations. Shapes, for all of them: a batch of B videos is packed,
// L tokens in all, cu_seqlens int32 [B + 1], tokens_per_frame int32 [B], keep int32 [B] summing to total_keep = K;
// G is num_samples. docs/ops.md has the contracts, score_ext the typed functions, score_ext.reference plain torch.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "cpu/kernels.h"

namespace score {

STABLE_TORCH_LIBRARY(score, m) {
  // tokens [L, D] -> float32 [L]; first None is +inf, which a schema cannot spell
  m.def(
      "surprise(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, str metric=\"cosine\", "
      "float? first=None) -> Tensor");
  // rows begin .. end of [LayerNorm(x) ; LayerNorm(dx) ; position], position float32 [L, P] -> dtype [end - begin, S]
  m.def(
      "policy_state(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor? position, SymInt begin, "
      "SymInt end, ScalarType dtype, bool use_token=True, bool use_residual=True, float epsilon=1e-5) -> Tensor");
  // The state through one or two hidden layers: w1 [H1, S], b1 [H1], w2 [H2, H1], b2 [H2], w_out [1, H], b_out [1]
  // -> float32 [L]
  m.def(
      "policy_logits(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor? position, Tensor w1, "
      "Tensor b1, Tensor? w2, Tensor? b2, Tensor w_out, Tensor b_out, bool use_token=True, bool use_residual=True, "
      "float epsilon=1e-5) -> Tensor");
  // scores float32 [L] -> int64 [K], ascending
  m.def(
      "select(Tensor scores, Tensor cu_seqlens, Tensor keep, SymInt total_keep, str law=\"topk\", "
      "float offset=0.5) -> Tensor");
  // logits float32 [L], seed int64 [1] or [B] -> index int64 [G, K] ascending, order int64 [G, K] as drawn
  m.def(
      "draw(Tensor logits, Tensor cu_seqlens, Tensor keep, SymInt total_keep, SymInt num_samples, Tensor seed) -> "
      "(Tensor index, Tensor order)");
  // order int64 [G, K] -> log-probability float32 [G, B]
  m.def("plackett_luce(Tensor logits, Tensor cu_seqlens, Tensor keep, Tensor order) -> Tensor");
  // grad float32 [G, B] -> float32 [L]
  m.def(
      "plackett_luce_backward(Tensor grad, Tensor logits, Tensor cu_seqlens, Tensor keep, Tensor order) -> Tensor");
  // draw and plackett_luce in one -> index int64 [G, K] ascending, log_prob float32 [G, B]
  m.def(
      "sample(Tensor logits, Tensor cu_seqlens, Tensor keep, SymInt total_keep, SymInt num_samples, Tensor seed) -> "
      "(Tensor index, Tensor log_prob)");
  // -> mask bool [G, L], log_prob float32 [G, B], count int32 [G, B]
  m.def(
      "sample_bernoulli(Tensor logits, Tensor cu_seqlens, SymInt num_samples, Tensor seed) -> "
      "(Tensor mask, Tensor log_prob, Tensor count)");
  // tokens [L, ...] of any dtype, index int64 [K] -> [K, ...]
  m.def("gather(Tensor tokens, Tensor index) -> Tensor");
  // keep int32 [B] -> int32 [B + 1], its running sum from 0
  m.def("kept_offsets(Tensor cu_seqlens, Tensor keep) -> Tensor");
  // surprise (unless scores are given), select and gather in one -> kept [K, D], index int64 [K], cu_kept int32 [B + 1]
  m.def(
      "compress(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor keep, SymInt total_keep, "
      "Tensor? scores=None, str law=\"topk\", float offset=0.5) -> (Tensor kept, Tensor index, Tensor cu_kept)");
}

namespace {

using torch::headeronly::ScalarType;
using torch::stable::new_empty;

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
const T* const_data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

Tensor surprise(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const std::string& metric,
    std::optional<double> first) {
  const PackedTokens packed = check_tokens("surprise", tokens, cu_seqlens, tokens_per_frame);
  Tensor out = new_empty(packed.tokens, {packed.tokens.size(0)}, ScalarType::Float);
  const float value = static_cast<float>(first.value_or(std::numeric_limits<double>::infinity()));
  cpu::surprise(packed.batch(), parse_metric("surprise", metric), value, data<float>(out));
  return out;
}

Tensor policy_state(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame,
    const std::optional<Tensor>& position, int64_t begin, int64_t end, ScalarType dtype, bool use_token,
    bool use_residual, double epsilon) {
  const char* op = "policy_state";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const CheckedState state = check_state(op, packed, position, begin, end, use_token, use_residual, epsilon);
  const DType out_dtype = token_dtype(op, "dtype", dtype);
  Tensor out = new_empty(packed.tokens, {end - begin, state.parts.columns(packed.tokens.size(1))}, dtype);
  cpu::policy_state(packed.batch(), state.parts, begin, end, out_dtype, data<void>(out));
  return out;
}

Tensor select(
    const Tensor& scores, const Tensor& cu_seqlens, const Tensor& keep, int64_t total_keep, const std::string& law,
    double offset) {
  const PackedScores packed = check_scores("select", "scores", scores, cu_seqlens);
  const Tensor budgets = check_keep("select", keep, packed.scores, packed.cu_seqlens, total_keep);
  check_offset("select", offset);
  const Law parsed = parse_law("select", law);
  Tensor index = new_empty(packed.scores, {total_keep}, ScalarType::Long);
  cpu::select(packed.data(), packed.batch(), const_data<int32_t>(budgets), parsed, offset, data<int64_t>(index));
  return index;
}

std::tuple<Tensor, Tensor> draw(
    const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, int64_t total_keep, int64_t num_samples,
    const Tensor& seed) {
  const PackedScores packed = check_scores("draw", "logits", logits, cu_seqlens);
  const Tensor budgets = check_keep("draw", keep, packed.scores, packed.cu_seqlens, total_keep);
  const Tensor seeds = check_seed("draw", seed, packed);
  check_num_samples("draw", num_samples);
  Tensor index = new_empty(packed.scores, {num_samples, total_keep}, ScalarType::Long);
  Tensor order = new_empty(packed.scores, {num_samples, total_keep}, ScalarType::Long);
  cpu::draw(
      packed.data(), packed.batch(), const_data<int32_t>(budgets), total_keep, num_samples, const_data<int64_t>(seeds),
      seeds.size(0), data<int64_t>(index), data<int64_t>(order));
  return {index, order};
}

Tensor plackett_luce(const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, const Tensor& order) {
  const char* op = "plackett_luce";
  const PackedScores packed = check_scores(op, "logits", logits, cu_seqlens);
  const Tensor budgets = check_keep(op, keep, packed.scores, packed.cu_seqlens, order.dim() == 2 ? order.size(1) : 0);
  const Tensor rows = check_order(op, order, budgets, packed);
  Tensor log_prob = new_empty(packed.scores, {rows.size(0), budgets.size(0)}, ScalarType::Float);
  cpu::plackett_luce(
      packed.data(), packed.batch(), const_data<int32_t>(budgets), rows.size(1), rows.size(0),
      const_data<int64_t>(rows), data<float>(log_prob));
  return log_prob;
}

Tensor plackett_luce_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, const Tensor& order) {
  const char* op = "plackett_luce_backward";
  const PackedScores packed = check_scores(op, "logits", logits, cu_seqlens);
  const Tensor budgets = check_keep(op, keep, packed.scores, packed.cu_seqlens, order.dim() == 2 ? order.size(1) : 0);
  const Tensor rows = check_order(op, order, budgets, packed);
  const Tensor weights = check_grad(op, grad, rows.size(0), packed);
  Tensor grad_logits = new_empty(packed.scores, {packed.scores.size(0)}, ScalarType::Float);
  cpu::plackett_luce_backward(
      const_data<float>(weights), packed.data(), packed.batch(), const_data<int32_t>(budgets), rows.size(1),
      rows.size(0), const_data<int64_t>(rows), data<float>(grad_logits));
  return grad_logits;
}

std::tuple<Tensor, Tensor, Tensor> sample_bernoulli(
    const Tensor& logits, const Tensor& cu_seqlens, int64_t num_samples, const Tensor& seed) {
  const char* op = "sample_bernoulli";
  const PackedScores packed = check_scores(op, "logits", logits, cu_seqlens);
  const Tensor seeds = check_seed(op, seed, packed);
  check_num_samples(op, num_samples);
  const int64_t videos = packed.cu_seqlens.size(0) - 1;
  Tensor mask = new_empty(packed.scores, {num_samples, packed.scores.size(0)}, ScalarType::Bool);
  Tensor log_prob = new_empty(packed.scores, {num_samples, videos}, ScalarType::Float);
  Tensor count = new_empty(packed.scores, {num_samples, videos}, ScalarType::Int);
  cpu::sample_bernoulli(
      packed.data(), packed.batch(), num_samples, const_data<int64_t>(seeds), seeds.size(0), data<bool>(mask),
      data<float>(log_prob), data<int32_t>(count));
  return {mask, log_prob, count};
}

Tensor gather(const Tensor& tokens, const Tensor& index) {
  if (tokens.dim() == 0) fail("gather", "tokens", "must have rows, got ", describe(tokens));
  const Tensor rows = check_index("gather", index, tokens);
  const Tensor from = tokens.is_contiguous() ? tokens : torch::stable::contiguous(tokens);
  std::vector<int64_t> sizes(from.sizes().begin(), from.sizes().end());
  int64_t row_bytes = static_cast<int64_t>(from.element_size());
  for (size_t i = 1; i < sizes.size(); ++i) row_bytes *= sizes[i];
  sizes[0] = rows.size(0);
  Tensor out = new_empty(from, sizes);
  cpu::gather(from.const_data_ptr(), row_bytes, const_data<int64_t>(rows), rows.size(0), data<void>(out));
  return out;
}

Tensor kept_offsets(const Tensor& cu_seqlens, const Tensor& keep) {
  const int64_t videos = keep.dim() == 1 ? keep.size(0) : -1;
  if (keep.scalar_type() != ScalarType::Int || cu_seqlens.dim() != 1 || cu_seqlens.size(0) != videos + 1) {
    fail("kept_offsets", "keep", "must be int32 [num_videos], got ", describe(keep), " beside ", describe(cu_seqlens));
  }
  const Tensor budgets = keep.is_contiguous() ? keep : torch::stable::contiguous(keep);
  Tensor out = new_empty(budgets, {videos + 1});
  int32_t* sums = data<int32_t>(out);
  sums[0] = 0;
  for (int64_t video = 0; video < videos; ++video) sums[video + 1] = sums[video] + const_data<int32_t>(budgets)[video];
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(score, CPU, m) {
  m.impl("surprise", TORCH_BOX(&surprise));
  m.impl("policy_state", TORCH_BOX(&policy_state));
  m.impl("select", TORCH_BOX(&select));
  m.impl("draw", TORCH_BOX(&draw));
  m.impl("plackett_luce", TORCH_BOX(&plackett_luce));
  m.impl("plackett_luce_backward", TORCH_BOX(&plackett_luce_backward));
  m.impl("sample_bernoulli", TORCH_BOX(&sample_bernoulli));
  m.impl("gather", TORCH_BOX(&gather));
  m.impl("kept_offsets", TORCH_BOX(&kept_offsets));
}

}  // namespace score
