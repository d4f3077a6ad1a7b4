// relative_state and relative_logits, the same on every device: relative_measures once, relative_rows a block at a
// time.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "arguments.h"
#include "cpu/kernels.h"
#include "dispatch.h"
#include "network.h"

namespace score {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::detail::to;

// Rows of the state formed at a time: of 64 float32 columns they stay in a CPU's cache.
constexpr int64_t kRowsCpu = 1024;
constexpr int64_t kRowsGpu = 1 << 16;

// Calls relative_rows on what relative_measures made of a batch.
class Rows {
 public:
  Rows(const PackedTokens& packed, const RelativeVideos& videos) : packed_(packed), columns_(videos.columns) {
    const auto results = call(
        "score::relative_measures", packed.tokens, packed.cu_seqlens, packed.tokens_per_frame, videos.columns,
        videos.num_frames);
    measures_ = to<Tensor>(results[0]);
    moments_ = to<Tensor>(results[1]);
  }

  Tensor operator()(
      const std::optional<Tensor>& features, int64_t begin, int64_t end, ScalarType dtype, bool use_token,
      bool use_residual, bool use_position) const {
    return to<Tensor>(call(
        "score::relative_rows", measures_, moments_, packed_.cu_seqlens, packed_.tokens_per_frame, columns_, features,
        begin, end, dtype, use_token, use_residual, use_position)[0]);
  }

 private:
  PackedTokens packed_;
  Tensor columns_, measures_, moments_;
};

// The network on rows of the state, both on the CPU: policy_logits of what is all features. logits [rows].
void logits_of_rows(const Tensor& state, const Network& network, float* logits) {
  const auto rows = static_cast<int32_t>(state.size(0));
  const int32_t cu_seqlens[] = {0, rows};
  const TokenBatch no_tokens{nullptr, DType::kFloat32, 0, cu_seqlens, &rows, 1, rows};
  const auto* features = static_cast<const float*>(state.const_data_ptr());
  cpu::policy_logits(no_tokens, {false, false, features, state.size(1), 0.0f}, network.layers(), logits);
}

Tensor relative_state(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& columns,
    int64_t num_frames) {
  const char* op = "relative_state";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const RelativeVideos videos = check_relative(op, packed, columns, num_frames);
  return Rows(packed, videos)(std::nullopt, 0, packed.tokens.size(0), ScalarType::Float, true, true, false);
}

Tensor relative_logits(
    const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame, const Tensor& columns,
    int64_t num_frames, const Tensor& w1, const Tensor& b1, const std::optional<Tensor>& w2,
    const std::optional<Tensor>& b2, const Tensor& w_out, const Tensor& b_out, const std::optional<Tensor>& features,
    bool use_token, bool use_residual, bool use_position) {
  const char* op = "relative_logits";
  const PackedTokens packed = check_tokens(op, tokens, cu_seqlens, tokens_per_frame);
  const RelativeVideos videos = check_relative(op, packed, columns, num_frames);
  const int64_t length = packed.tokens.size(0);
  const CheckedRelativeState state =
      check_relative_state(op, packed, features, 0, length, use_token, use_residual, use_position);
  const Network network(op, w1, b1, w2, b2, w_out, b_out, state.parts.columns(), tokens);
  const std::optional<Tensor> plain = features.has_value() ? std::optional<Tensor>(state.features) : std::nullopt;
  const Rows rows(packed, videos);
  Tensor logits = torch::stable::new_empty(packed.tokens, {length}, ScalarType::Float);
  const bool on_cpu = packed.tokens.is_cpu();
  const int64_t step = on_cpu ? kRowsCpu : kRowsGpu;
  const ScalarType dtype = on_cpu ? ScalarType::Float : w1.scalar_type();
  for (int64_t begin = 0; begin < length; begin += step) {
    const int64_t end = std::min(begin + step, length);
    const Tensor block = rows(plain, begin, end, dtype, use_token, use_residual, use_position);
    if (on_cpu) {
      logits_of_rows(block, network, static_cast<float*>(logits.mutable_data_ptr()) + begin);
      continue;
    }
    Tensor slice = torch::stable::narrow(logits, 0, begin, end - begin);
    torch::stable::copy_(slice, network.logits(block));
  }
  return logits;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(score, CompositeExplicitAutograd, m) {
  m.impl("relative_state", TORCH_BOX(&relative_state));
  m.impl("relative_logits", TORCH_BOX(&relative_logits));
}

}  // namespace score
