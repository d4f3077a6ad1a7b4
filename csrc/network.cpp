#include "network.h"

#include "arguments.h"
#include "dispatch.h"

namespace score {
namespace {

using torch::stable::detail::to;

// A BLAS takes another path, which rounds differently, where a matrix begins at an odd address: those that do are
// copied to where torch's own allocator puts one. The tokens' values pass through our kernel first, so theirs does not
// matter.
constexpr uintptr_t kAlignment = 64;

Tensor aligned(const Tensor& tensor) {
  const Tensor plain = torch::stable::contiguous(tensor);
  return reinterpret_cast<uintptr_t>(plain.const_data_ptr()) % kAlignment == 0 ? plain : torch::stable::clone(plain);
}

std::optional<Tensor> aligned(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? std::optional<Tensor>(aligned(*tensor)) : std::nullopt;
}

void check_layer(
    const char* op, const char* name, const Tensor& weight, const Tensor& bias, int64_t inputs,
    const Tensor& first_weight, const Tensor& tokens) {
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

}  // namespace

Network::Network(
    const char* op, const Tensor& w1, const Tensor& b1, const std::optional<Tensor>& w2,
    const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out, int64_t columns, const Tensor& tokens) {
  token_dtype(op, "w1", w1.scalar_type());
  check_layer(op, "w1", w1, b1, columns, w1, tokens);
  if (w2.has_value() != b2.has_value()) fail(op, "w2", "and b2 must be given together");
  if (w2.has_value()) check_layer(op, "w2", *w2, *b2, w1.size(0), w1, tokens);
  const int64_t hidden = w2.has_value() ? w2->size(0) : w1.size(0);
  check_layer(op, "w_out", w_out, b_out, hidden, w1, tokens);
  if (w_out.size(0) != 1) fail(op, "w_out", "must be [1, ", hidden, "], got ", describe(w_out));
  w1_ = aligned(w1), b1_ = aligned(b1), w2_ = aligned(w2), b2_ = aligned(b2);
  w_out_ = aligned(w_out), b_out_ = aligned(b_out);
}

void Network::pad_columns(int64_t count) { w1_ = torch::stable::pad(w1_, {0, count}); }

NetworkLayers Network::layers() const {
  return {
      token_dtype("layers", "w1", w1_.scalar_type()),
      w1_.const_data_ptr(),
      b1_.const_data_ptr(),
      w2_.has_value() ? w2_->const_data_ptr() : nullptr,
      b2_.has_value() ? b2_->const_data_ptr() : nullptr,
      w_out_.const_data_ptr(),
      b_out_.const_data_ptr(),
      w1_.size(0),
      w2_.has_value() ? w2_->size(0) : 0};
}

Tensor Network::logits(const Tensor& state) const {
  Tensor x = gelu(linear(state, w1_, b1_));
  if (w2_.has_value()) x = gelu(linear(x, *w2_, *b2_));
  return torch::stable::flatten(linear(x, w_out_, b_out_), 0, 1);
}

}  // namespace score
