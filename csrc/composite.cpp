// Ops made of other ops, the same on every device: each step goes through torch's dispatcher.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "arguments.h"
#include "dispatch.h"
#include "network.h"

namespace score {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::detail::to;

// State formed at a time: enough for efficient products, little beside the tokens themselves.
constexpr int64_t kStateBytesCpu = int64_t{8} << 20;
constexpr int64_t kStateBytesGpu = int64_t{32} << 20;

Tensor policy_logits(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& w1, const Tensor& b1,
    const std::optional<Tensor>& w2, const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out,
    const std::optional<Tensor>& features, bool use_token, bool use_residual, double epsilon) {
  const char* op = "policy_logits";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const int64_t length = packed.tokens.size(0);
  const CheckedState state = check_state(op, packed, features, 0, length, use_token, use_residual, epsilon);
  const int64_t columns = state.parts.columns(packed.tokens.size(1));
  const Network network(op, w1, b1, w2, b2, w_out, b_out, columns, tokens);
  Tensor logits = torch::stable::new_empty(packed.tokens, {length}, ScalarType::Float);
  const int64_t budget = packed.tokens.is_cpu() ? kStateBytesCpu : kStateBytesGpu;
  const int64_t rows = std::clamp<int64_t>(budget / (columns * static_cast<int64_t>(w1.element_size())), 64, 1 << 16);
  for (int64_t begin = 0; begin < length; begin += rows) {
    const int64_t end = std::min(begin + rows, length);
    const Tensor block = to<Tensor>(call(
        "score::policy_state", packed.tokens, packed.cu_seqlens, packed.tokens_per_frame, features, begin, end,
        w1.scalar_type(), use_token, use_residual, epsilon)[0]);
    Tensor slice = torch::stable::narrow(logits, 0, begin, end - begin);
    torch::stable::copy_(slice, network.logits(block));
  }
  return logits;
}

std::tuple<Tensor, Tensor, Tensor> compress(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& keep,
    int64_t total_keep, const std::optional<Tensor>& scores, const std::string& selection, double offset) {
  const char* op = "compress";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  if (scores.has_value()) check_token_scores(op, *scores, packed);
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

STABLE_TORCH_LIBRARY_IMPL(score, CompositeExplicitAutograd, m) {
  m.impl("policy_logits", TORCH_BOX(&policy_logits));
  m.impl("compress", TORCH_BOX(&compress));
}

}  // namespace score
