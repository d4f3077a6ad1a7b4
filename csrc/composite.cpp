// Ops made of other ops, the same on every device: each step goes through torch's dispatcher.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "arguments.h"

namespace score {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::detail::from;
using torch::stable::detail::to;

// Calls an op by name; the results lie in the stack it returns.
template <typename... Arguments>
std::array<StableIValue, sizeof...(Arguments)> call(const char* op, const Arguments&... arguments) {
  std::array<StableIValue, sizeof...(Arguments)> stack{from(arguments)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "", stack.data(), TORCH_ABI_VERSION));
  return stack;
}

// A BLAS takes another path, which rounds differently, where a matrix begins at an odd address: those that do are
// copied to where torch's own allocator puts one. The tokens' values pass through our kernel first, so theirs does not
// matter.
constexpr uintptr_t kAlignment = 64;

Tensor aligned(const Tensor& tensor) {
  const Tensor plain = torch::stable::contiguous(tensor);
  return reinterpret_cast<uintptr_t>(plain.const_data_ptr()) % kAlignment == 0 ? plain : torch::stable::clone(plain);
}

// State formed at a time: enough for efficient products, little beside the tokens themselves.
constexpr int64_t kStateBytesCpu = int64_t{8} << 20;
constexpr int64_t kStateBytesGpu = int64_t{32} << 20;

// Everything is checked before the first call: what an inner op throws reaches the caller without its message.
void check_layer(
    const char* name, const Tensor& weight, const Tensor& bias, int64_t inputs, const Tensor& first_weight,
    const Tensor& tokens) {
  const char* op = "policy_logits";
  if (weight.dim() != 2 || weight.size(1) != inputs || bias.dim() != 1 || bias.size(0) != weight.size(0)) {
    fail(
        op, name, "must be a weight [outputs, ", inputs, "] with a bias [outputs], got ", describe(weight), " and ",
        describe(bias));
  }
  if (weight.scalar_type() != first_weight.scalar_type() || bias.scalar_type() != first_weight.scalar_type()) {
    fail(
        op, name, "must have one dtype in all layers, got ", describe(weight), " and ", describe(bias), " beside ",
        describe(first_weight));
  }
  for (const Tensor* tensor : {&weight, &bias}) {
    if (!same_device(*tensor, tokens)) {
      fail(op, name, "must be on the device of the tokens, got ", describe(*tensor), " beside ", describe(tokens));
    }
  }
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return to<Tensor>(call("aten::linear", x, weight, std::optional<Tensor>(bias))[0]);
}

Tensor gelu(const Tensor& x) { return to<Tensor>(call("aten::gelu", x, std::string("none"))[0]); }

Tensor policy_logits(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& w1, const Tensor& b1,
    const std::optional<Tensor>& w2, const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out,
    const std::optional<Tensor>& features, bool use_token, bool use_residual, double epsilon) {
  const char* op = "policy_logits";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const int64_t length = packed.tokens.size(0);
  const CheckedState state = check_state(op, packed, features, 0, length, use_token, use_residual, epsilon);
  const int64_t columns = state.parts.columns(packed.tokens.size(1));
  token_dtype(op, "w1", w1.scalar_type());
  check_layer("w1", w1, b1, columns, w1, tokens);
  if (w2.has_value() != b2.has_value()) fail(op, "w2", "and b2 must be given together");
  if (w2.has_value()) check_layer("w2", *w2, *b2, w1.size(0), w1, tokens);
  const int64_t hidden = w2.has_value() ? w2->size(0) : w1.size(0);
  check_layer("w_out", w_out, b_out, hidden, w1, tokens);
  if (w_out.size(0) != 1) fail(op, "w_out", "must be [1, ", hidden, "], got ", describe(w_out));

  const Tensor weight1 = aligned(w1), bias1 = aligned(b1), weight_out = aligned(w_out), bias_out = aligned(b_out);
  const std::optional<Tensor> weight2 = w2.has_value() ? std::optional<Tensor>(aligned(*w2)) : std::nullopt;
  const std::optional<Tensor> bias2 = b2.has_value() ? std::optional<Tensor>(aligned(*b2)) : std::nullopt;
  Tensor logits = torch::stable::new_empty(packed.tokens, {length}, ScalarType::Float);
  const int64_t budget = packed.tokens.is_cpu() ? kStateBytesCpu : kStateBytesGpu;
  const int64_t rows = std::clamp<int64_t>(budget / (columns * static_cast<int64_t>(w1.element_size())), 64, 1 << 16);
  for (int64_t begin = 0; begin < length; begin += rows) {
    const int64_t end = std::min(begin + rows, length);
    Tensor x = to<Tensor>(call(
        "score::policy_state", packed.tokens, packed.cu_seqlens, packed.tokens_per_frame, features, begin, end,
        w1.scalar_type(), use_token, use_residual, epsilon)[0]);
    x = gelu(linear(x, weight1, bias1));
    if (weight2.has_value()) x = gelu(linear(x, *weight2, *bias2));
    x = torch::stable::flatten(linear(x, weight_out, bias_out), 0, 1);
    Tensor slice = torch::stable::narrow(logits, 0, begin, end - begin);
    torch::stable::copy_(slice, x);
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
