// The policy's network: one or two hidden layers with GELU, and a logit. Its products are torch's.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "score/types.h"

namespace score {

class Network {
 public:
  // Checks every layer before anything is computed: what an inner op throws reaches the caller without its message.
  // w1 [H1, columns], b1 [H1], w2 [H2, H1] and b2 [H2] or none, w_out [1, H], b_out [1], of one dtype, on the device of
  // the tokens.
  Network(
      const char* op, const torch::stable::Tensor& w1, const torch::stable::Tensor& b1,
      const std::optional<torch::stable::Tensor>& w2, const std::optional<torch::stable::Tensor>& b2,
      const torch::stable::Tensor& w_out, const torch::stable::Tensor& b_out, int64_t columns,
      const torch::stable::Tensor& tokens);

  // For a state that has as many columns of zeros behind its own.
  void pad_columns(int64_t count);

  // state [rows, columns] of the weights' dtype -> [rows], of the same.
  torch::stable::Tensor logits(const torch::stable::Tensor& state) const;

  // Where the layers lie, for a kernel; as long as this network lives.
  NetworkLayers layers() const;

 private:
  torch::stable::Tensor w1_, b1_, w_out_, b_out_;
  std::optional<torch::stable::Tensor> w2_, b2_;
};

}  // namespace score
