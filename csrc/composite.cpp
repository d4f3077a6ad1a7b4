// Ops made of other ops, the same on every device: each step goes through torch's dispatcher.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "arguments.h"
#include "cpu/kernels.h"
#include "dispatch.h"
#include "network.h"

namespace score {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::detail::to;

// Checked arguments of policy_logits.
struct PolicyLogits {
  PackedTokens packed;
  CheckedState state;
  Network network;
};

PolicyLogits check_policy_logits(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& w1, const Tensor& b1,
    const std::optional<Tensor>& w2, const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out,
    const std::optional<Tensor>& features, bool use_token, bool use_residual, double epsilon) {
  const char* op = "policy_logits";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const int64_t length = packed.tokens.size(0);
  const CheckedState state = check_state(op, packed, features, 0, length, use_token, use_residual, epsilon);
  const int64_t columns = state.parts.columns(packed.tokens.size(1));
  return {packed, state, Network(op, w1, b1, w2, b2, w_out, b_out, columns, tokens)};
}

// A kernel of its own: csrc/cpu/policy_logits.cpp.
Tensor policy_logits_cpu(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& w1, const Tensor& b1,
    const std::optional<Tensor>& w2, const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out,
    const std::optional<Tensor>& features, bool use_token, bool use_residual, double epsilon) {
  const PolicyLogits checked = check_policy_logits(
      tokens, cu_seqlens, tokens_per_frame, w1, b1, w2, b2, w_out, b_out, features, use_token, use_residual, epsilon);
  const Tensor& rows = checked.packed.tokens;
  Tensor logits = torch::stable::new_empty(rows, {rows.size(0)}, ScalarType::Float);
  cpu::policy_logits(
      checked.packed.batch(), checked.state.parts, checked.network.layers(),
      static_cast<float*>(logits.mutable_data_ptr()));
  return logits;
}

// State formed at a time on other devices: enough rows for a product that fills a GPU, and few launches; less than the
// tokens of a long video.
constexpr int64_t kStateBytes = int64_t{128} << 20;
// Rows that begin at multiples of this are written by vectors, and multiplied by tensor cores.
constexpr int64_t kRowAlignment = 16;

Tensor policy_logits(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& w1, const Tensor& b1,
    const std::optional<Tensor>& w2, const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out,
    const std::optional<Tensor>& features, bool use_token, bool use_residual, double epsilon) {
  PolicyLogits checked = check_policy_logits(
      tokens, cu_seqlens, tokens_per_frame, w1, b1, w2, b2, w_out, b_out, features, use_token, use_residual, epsilon);
  const PackedTokens& packed = checked.packed;
  const int64_t length = packed.tokens.size(0), item_bytes = static_cast<int64_t>(w1.element_size());
  int64_t columns = checked.state.parts.columns(packed.tokens.size(1));

  // 2 * 3584 + 21 columns would misalign every row: features get columns of zeros, and so do the weights.
  std::optional<Tensor> padded = features;
  const int64_t unit = kRowAlignment / item_bytes, padding = (unit - columns % unit) % unit;
  if (padding > 0) {
    padded = features.has_value() ? torch::stable::pad(*features, {0, padding})
                                  : torch::stable::new_zeros(packed.tokens, {length, padding}, ScalarType::Float);
    checked.network.pad_columns(padding);
    columns += padding;
  }

  Tensor logits = torch::stable::new_empty(packed.tokens, {length}, ScalarType::Float);
  // Blocks of equal size: a small last one would cost as many launches.
  const int64_t most = std::clamp<int64_t>(kStateBytes / (columns * item_bytes), 64, 1 << 16);
  const int64_t blocks = (length + most - 1) / most, rows = blocks > 0 ? (length + blocks - 1) / blocks : 1;
  for (int64_t begin = 0; begin < length; begin += rows) {
    const int64_t end = std::min(begin + rows, length);
    const Tensor block = to<Tensor>(call(
        "score::policy_state", packed.tokens, packed.cu_seqlens, packed.tokens_per_frame, padded, begin, end,
        w1.scalar_type(), use_token, use_residual, epsilon)[0]);
    Tensor slice = torch::stable::narrow(logits, 0, begin, end - begin);
    torch::stable::copy_(slice, checked.network.logits(block));
  }
  return logits;
}

std::tuple<Tensor, Tensor, Tensor> compress(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& keep,
    int64_t total_keep, const std::optional<Tensor>& scores, const std::string& selection, double offset) {
  const char* op = "compress";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  if (scores.has_value()) check_token_scores(op, "scores", *scores, packed.tokens);
  check_keep(op, keep, packed.tokens, packed.cu_seqlens, total_keep);
  parse_selection(op, selection);
  check_offset(op, offset);
  const Tensor ranked = scores.has_value()
                            ? *scores
                            : to<Tensor>(call(
                                  "score::surprise", packed.tokens, packed.cu_seqlens, packed.tokens_per_frame,
                                  std::string("cosine"), std::optional<double>())[0]);
  const Tensor index =
      to<Tensor>(call("score::select", ranked, packed.cu_seqlens, keep, total_keep, selection, offset)[0]);
  const Tensor kept = to<Tensor>(call("score::gather", packed.tokens, index)[0]);
  return {kept, index, to<Tensor>(call("score::kept_offsets", packed.cu_seqlens, keep)[0])};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(score, CPU, m) { m.impl("policy_logits", TORCH_BOX(&policy_logits_cpu)); }

STABLE_TORCH_LIBRARY_IMPL(score, CompositeExplicitAutograd, m) {
  m.impl("policy_logits", TORCH_BOX(&policy_logits));
  m.impl("compress", TORCH_BOX(&compress));
}

}  // namespace score
