// check -> allocate -> launch, once for every device. Device is made from a tensor that lies on it and offers the
// kernels of kernels.h as members: Cpu in ops.cpp, Cuda in ops_cuda.cpp.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "arguments.h"

namespace score {

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

template <typename Device>
Tensor surprise(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const std::string& metric,
    std::optional<double> first) {
  const PackedTokens packed = check_tokens("surprise", tokens, cu_seqlens, tokens_per_frame);
  Tensor out = new_empty(packed.tokens, {packed.tokens.size(0)}, ScalarType::Float);
  const float value = static_cast<float>(first.value_or(std::numeric_limits<double>::infinity()));
  Device(packed.tokens).surprise(packed.batch(), parse_metric("surprise", metric), value, data<float>(out));
  return out;
}

template <typename Device>
Tensor policy_state(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame,
    const std::optional<Tensor>& features, int64_t begin, int64_t end, ScalarType dtype, bool use_token,
    bool use_residual, double epsilon) {
  const char* op = "policy_state";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const CheckedState state = check_state(op, packed, features, begin, end, use_token, use_residual, epsilon);
  const DType out_dtype = token_dtype(op, "dtype", dtype);
  Tensor out = new_empty(packed.tokens, {end - begin, state.parts.columns(packed.tokens.size(1))}, dtype);
  Device(packed.tokens).policy_state(packed.batch(), state.parts, begin, end, out_dtype, data<void>(out));
  return out;
}

inline RelativeBatch relative_batch(const PackedTokens& packed, const RelativeVideos& videos) {
  return {packed.batch(), const_data<int32_t>(videos.columns), videos.num_frames};
}

template <typename Device>
std::tuple<Tensor, Tensor> relative_measures(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& columns,
    int64_t num_frames) {
  const char* op = "relative_measures";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const RelativeVideos videos = check_relative(op, packed, columns, num_frames);
  const int64_t groups = num_frames + packed.tokens_per_frame.size(0);
  Tensor measures = new_empty(packed.tokens, {packed.tokens.size(0), kMeasures}, ScalarType::Float);
  Tensor moments = new_empty(packed.tokens, {groups, kMeasures, 2}, ScalarType::Double);
  Device(packed.tokens).relative_measures(relative_batch(packed, videos), data<float>(measures), data<double>(moments));
  return {measures, moments};
}

template <typename Device>
Tensor relative_rows(
    const Tensor& measures, const Tensor& moments, const Tensor& cu_seqlens, const Tensor& tokens_per_frame,
    const Tensor& columns, const std::optional<Tensor>& features, int64_t begin, int64_t end, ScalarType dtype,
    bool use_token, bool use_residual, bool use_position) {
  const char* op = "relative_rows";
  const CheckedMeasures checked = check_measures(op, measures, moments, cu_seqlens, tokens_per_frame, columns);
  const CheckedRelativeState state =
      check_relative_state(op, checked.packed, features, begin, end, use_token, use_residual, use_position);
  const DType out_dtype = token_dtype(op, "dtype", dtype);
  Tensor out = new_empty(checked.packed.tokens, {end - begin, state.parts.columns()}, dtype);
  Device(out).relative_rows(
      relative_batch(checked.packed, checked.videos), const_data<float>(checked.packed.tokens),
      const_data<double>(checked.moments), state.parts, begin, end, out_dtype, data<void>(out));
  return out;
}

template <typename Device>
Tensor select(
    const Tensor& scores, const Tensor& cu_seqlens, const Tensor& keep, int64_t total_keep,
    const std::string& selection, double offset) {
  const PackedScores packed = check_scores("select", "scores", scores, cu_seqlens);
  const Tensor budgets = check_keep("select", keep, packed.scores, packed.cu_seqlens, total_keep);
  check_offset("select", offset);
  const SelectionRule parsed = parse_selection("select", selection);
  Tensor index = new_empty(packed.scores, {total_keep}, ScalarType::Long);
  Device(packed.scores)
      .select(
          packed.data(), packed.batch(), const_data<int32_t>(budgets), total_keep, parsed, offset,
          data<int64_t>(index));
  return index;
}

template <typename Device>
Tensor divprune(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& keep, int64_t total_keep, bool ordered,
    const std::optional<Tensor>& weights) {
  const VideoTokens videos = check_video_tokens("divprune", tokens, cu_seqlens);
  const Tensor budgets = check_keep("divprune", keep, videos.tokens, videos.cu_seqlens, total_keep);
  std::optional<Tensor> checked;
  if (weights.has_value()) checked = check_token_scores("divprune", "weights", *weights, videos.tokens);
  Tensor index = new_empty(videos.tokens, {total_keep}, ScalarType::Long);
  Device(videos.tokens)
      .divprune(
          videos.batch(), const_data<int32_t>(budgets), total_keep, ordered,
          checked ? const_data<float>(*checked) : nullptr, data<int64_t>(index));
  return index;
}

// What gumbel_topk and gumbel_topk_with_log_prob share: checked arguments, and the rows drawn.
struct GumbelTopk {
  PackedScores packed;
  Tensor keep, index, order;
};

template <typename Device>
GumbelTopk gumbel_topk_rows(
    const char* op, const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, int64_t num_samples,
    const Tensor& seed, int64_t total_keep) {
  const PackedScores packed = check_scores(op, "logits", logits, cu_seqlens);
  const Tensor budgets = check_keep(op, keep, packed.scores, packed.cu_seqlens, total_keep);
  const Tensor seeds = check_seed(op, seed, packed);
  check_num_samples(op, num_samples);
  Tensor index = new_empty(packed.scores, {num_samples, total_keep}, ScalarType::Long);
  Tensor order = new_empty(packed.scores, {num_samples, total_keep}, ScalarType::Long);
  Device(packed.scores)
      .gumbel_topk(
          packed.data(), packed.batch(), const_data<int32_t>(budgets), total_keep, num_samples,
          const_data<int64_t>(seeds), seeds.size(0), data<int64_t>(index), data<int64_t>(order));
  return {packed, budgets, index, order};
}

template <typename Device>
Tensor log_probability(const PackedScores& packed, const Tensor& keep, const Tensor& order) {
  Tensor log_prob = new_empty(packed.scores, {order.size(0), keep.size(0)}, ScalarType::Float);
  Device(packed.scores)
      .plackett_luce_log_prob(
          packed.data(), packed.batch(), const_data<int32_t>(keep), order.size(1), order.size(0),
          const_data<int64_t>(order), data<float>(log_prob));
  return log_prob;
}

template <typename Device>
std::tuple<Tensor, Tensor> gumbel_topk(
    const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, int64_t num_samples, const Tensor& seed,
    int64_t total_keep) {
  const GumbelTopk drawn =
      gumbel_topk_rows<Device>("gumbel_topk", logits, cu_seqlens, keep, num_samples, seed, total_keep);
  return {drawn.index, drawn.order};
}

template <typename Device>
std::tuple<Tensor, Tensor> gumbel_topk_with_log_prob(
    const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, int64_t num_samples, const Tensor& seed,
    int64_t total_keep) {
  const GumbelTopk drawn =
      gumbel_topk_rows<Device>("gumbel_topk_with_log_prob", logits, cu_seqlens, keep, num_samples, seed, total_keep);
  return {drawn.index, log_probability<Device>(drawn.packed, drawn.keep, drawn.order)};
}

template <typename Device>
Tensor plackett_luce_log_prob(const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, const Tensor& order) {
  const char* op = "plackett_luce_log_prob";
  const PackedScores packed = check_scores(op, "logits", logits, cu_seqlens);
  const auto [rows, budgets] = check_order(op, order, keep, packed);
  return log_probability<Device>(packed, budgets, rows);
}

template <typename Device>
Tensor plackett_luce_log_prob_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& cu_seqlens, const Tensor& keep, const Tensor& order) {
  const char* op = "plackett_luce_log_prob_backward";
  const PackedScores packed = check_scores(op, "logits", logits, cu_seqlens);
  const auto [rows, budgets] = check_order(op, order, keep, packed);
  const Tensor weights = check_grad(op, grad, rows.size(0), packed);
  Tensor grad_logits = new_empty(packed.scores, {packed.scores.size(0)}, ScalarType::Float);
  Device(packed.scores)
      .plackett_luce_log_prob_backward(
          const_data<float>(weights), packed.data(), packed.batch(), const_data<int32_t>(budgets), rows.size(1),
          rows.size(0), const_data<int64_t>(rows), data<float>(grad_logits));
  return grad_logits;
}

template <typename Device>
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
  Device(packed.scores)
      .sample_bernoulli(
          packed.data(), packed.batch(), num_samples, const_data<int64_t>(seeds), seeds.size(0), data<bool>(mask),
          data<float>(log_prob), data<int32_t>(count));
  return {mask, log_prob, count};
}

template <typename Device>
Tensor gather(const Tensor& tokens, const Tensor& index) {
  if (tokens.dim() == 0) fail("gather", "tokens", "must have rows, got ", describe(tokens));
  const Tensor rows = check_index("gather", index, tokens);
  const Tensor from = tokens.is_contiguous() ? tokens : torch::stable::contiguous(tokens);
  std::vector<int64_t> sizes(from.sizes().begin(), from.sizes().end());
  int64_t row_bytes = static_cast<int64_t>(from.element_size());
  for (size_t i = 1; i < sizes.size(); ++i) row_bytes *= sizes[i];
  sizes[0] = rows.size(0);
  Tensor out = new_empty(from, sizes);
  Device(from).gather(
      from.const_data_ptr(), from.size(0), row_bytes, const_data<int64_t>(rows), rows.size(0), data<void>(out));
  return out;
}

template <typename Device>
Tensor thumbnails(const Tensor& pixels, int64_t rows, int64_t columns) {
  const PixelBatch batch = check_pixels("thumbnails", pixels, rows, columns);
  Tensor out = new_empty(pixels, {batch.sizes[0], batch.sizes[1], rows, columns}, ScalarType::Float);
  Device(pixels).thumbnails(batch, data<float>(out));
  return out;
}

template <typename Device>
Tensor count_sketch(const Tensor& tokens, int64_t width) {
  const Tensor rows = check_token_matrix("count_sketch", tokens);
  check_size("count_sketch", "width", width);
  Tensor out = new_empty(rows, {rows.size(0), width}, ScalarType::Float);
  const DType dtype = token_dtype("count_sketch", "tokens", rows.scalar_type());
  Device(rows).count_sketch({rows.const_data_ptr(), dtype, rows.size(0), rows.size(1)}, width, data<float>(out));
  return out;
}

template <typename Device>
Tensor kept_offsets(const Tensor& cu_seqlens, const Tensor& keep) {
  const PackedBudgets packed = check_budgets("kept_offsets", keep, cu_seqlens);
  const int64_t videos = packed.keep.size(0);
  Tensor out = new_empty(packed.keep, {videos + 1});
  const PackedBatch batch{const_data<int32_t>(packed.cu_seqlens), videos, std::numeric_limits<int32_t>::max()};
  Device(packed.keep).kept_offsets(batch, const_data<int32_t>(packed.keep), data<int32_t>(out));
  return out;
}

template <typename Device>
void register_relative_ops(torch::stable::detail::StableLibrary& m) {
  m.impl("relative_measures", TORCH_BOX(&relative_measures<Device>));
  m.impl("relative_rows", TORCH_BOX(&relative_rows<Device>));
}

template <typename Device>
void register_ops(torch::stable::detail::StableLibrary& m) {
  m.impl("surprise", TORCH_BOX(&surprise<Device>));
  m.impl("policy_state", TORCH_BOX(&policy_state<Device>));
  m.impl("select", TORCH_BOX(&select<Device>));
  m.impl("divprune", TORCH_BOX(&divprune<Device>));
  m.impl("gumbel_topk", TORCH_BOX(&gumbel_topk<Device>));
  m.impl("gumbel_topk_with_log_prob", TORCH_BOX(&gumbel_topk_with_log_prob<Device>));
  m.impl("plackett_luce_log_prob", TORCH_BOX(&plackett_luce_log_prob<Device>));
  m.impl("plackett_luce_log_prob_backward", TORCH_BOX(&plackett_luce_log_prob_backward<Device>));
  m.impl("sample_bernoulli", TORCH_BOX(&sample_bernoulli<Device>));
  m.impl("gather", TORCH_BOX(&gather<Device>));
  m.impl("thumbnails", TORCH_BOX(&thumbnails<Device>));
  m.impl("count_sketch", TORCH_BOX(&count_sketch<Device>));
  m.impl("kept_offsets", TORCH_BOX(&kept_offsets<Device>));
}

}  // namespace score
