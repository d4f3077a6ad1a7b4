// CUDA registrations of the ops whose schemas ops.cpp defines.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/shim_utils.h>

#include "bindings.h"
#include "cuda/kernels.h"

namespace score {
namespace {

// The CUDA kernels as bindings.h calls them: on the tensors' device, in the caller's stream. Scratch comes from torch's
// caching allocator, which knows the stream and may be used while a CUDA graph is captured.
class Cuda {
 public:
  explicit Cuda(const Tensor& tensor) : tensor_(tensor), guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  void surprise(const TokenBatch& batch, Metric metric, float first, float* out) {
    STD_CUDA_CHECK(cuda::surprise(batch, metric, first, out, stream_));
  }

  void policy_state(
      const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType dtype, void* out) {
    STD_CUDA_CHECK(cuda::policy_state(batch, parts, begin, end, dtype, out, stream_));
  }

  void relative_measures(const RelativeBatch& batch, float* measures, double* moments) {
    const auto launch = [&](void* workspace, size_t* bytes) {
      STD_CUDA_CHECK(cuda::relative_measures(batch, measures, moments, workspace, bytes, stream_));
    };
    size_t bytes = 0;
    launch(nullptr, &bytes);
    const Tensor workspace = scratch<uint8_t>(static_cast<int64_t>(bytes));
    launch(workspace.mutable_data_ptr(), &bytes);
  }

  void relative_rows(
      const RelativeBatch& batch, const float* measures, const double* moments, const RelativeParts& parts,
      int64_t begin, int64_t end, DType dtype, void* out) {
    STD_CUDA_CHECK(cuda::relative_rows(batch, measures, moments, parts, begin, end, dtype, out, stream_));
  }

  void select(
      const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, SelectionRule selection,
      double offset, int64_t* index) {
    size_t bytes = 0;
    STD_CUDA_CHECK(cuda::select_workspace(batch, total_keep, selection, &bytes));
    const std::optional<Tensor> workspace = workspace_of(bytes);
    STD_CUDA_CHECK(
        cuda::select(scores, batch, keep, total_keep, selection, offset, index, address(workspace), stream_));
  }

  void divprune(
      const TokenBatch& batch, const int32_t* keep, int64_t total_keep, bool ordered, const float* weights,
      int64_t* index) {
    const auto launch = [&](void* workspace, size_t* bytes) {
      STD_CUDA_CHECK(cuda::divprune(batch, keep, total_keep, ordered, weights, index, workspace, bytes, stream_));
    };
    size_t bytes = 0;
    launch(nullptr, &bytes);
    const Tensor workspace = scratch<uint8_t>(static_cast<int64_t>(bytes));
    launch(workspace.mutable_data_ptr(), &bytes);
  }

  void gumbel_topk(
      const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
      const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order) {
    const auto launch = [&](void* workspace, size_t* bytes) {
      STD_CUDA_CHECK(
          cuda::gumbel_topk(
              logits, batch, keep, total_keep, num_samples, seed, num_seeds, index, order, workspace, bytes, stream_));
    };
    size_t bytes = 0;
    launch(nullptr, &bytes);
    const Tensor workspace = scratch<uint8_t>(std::max<int64_t>(static_cast<int64_t>(bytes), 1));
    launch(workspace.mutable_data_ptr(), &bytes);
  }

  void plackett_luce_log_prob(
      const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
      const int64_t* order, float* log_prob) {
    const Tensor rank = scratch<int32_t>(num_samples * batch.num_tokens);
    const std::optional<Tensor> workspace = workspace_of(cuda::plackett_luce_workspace(batch, num_samples));
    STD_CUDA_CHECK(
        cuda::plackett_luce_log_prob(
            logits, batch, keep, total_keep, num_samples, order, data<int32_t>(rank), log_prob, address(workspace),
            stream_));
  }

  void plackett_luce_log_prob_backward(
      const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
      int64_t num_samples, const int64_t* order, float* grad_logits) {
    const Tensor rank = scratch<int32_t>(num_samples * batch.num_tokens);
    const Tensor log_shares = scratch<double>(num_samples * total_keep);
    const std::optional<Tensor> workspace = workspace_of(cuda::plackett_luce_workspace(batch, num_samples));
    STD_CUDA_CHECK(
        cuda::plackett_luce_log_prob_backward(
            grad, logits, batch, keep, total_keep, num_samples, order, data<int32_t>(rank), data<double>(log_shares),
            grad_logits, address(workspace), stream_));
  }

  void sample_bernoulli(
      const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
      bool* mask, float* log_prob, int32_t* count) {
    const std::optional<Tensor> workspace = workspace_of(cuda::sample_bernoulli_workspace(batch, num_samples));
    STD_CUDA_CHECK(
        cuda::sample_bernoulli(
            logits, batch, num_samples, seed, num_seeds, mask, log_prob, count, address(workspace), stream_));
  }

  void gather(
      const void* tokens, int64_t num_tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out) {
    STD_CUDA_CHECK(cuda::gather(tokens, num_tokens, row_bytes, index, num_rows, out, stream_));
  }

  void thumbnails(const PixelBatch& batch, float* out) { STD_CUDA_CHECK(cuda::thumbnails(batch, out, stream_)); }

  void count_sketch(const TokenMatrix& tokens, int64_t width, float* out) {
    STD_CUDA_CHECK(cuda::count_sketch(tokens, width, out, stream_));
  }

  void kept_offsets(const PackedBatch& batch, const int32_t* keep, int32_t* cu_kept) {
    STD_CUDA_CHECK(cuda::kept_offsets(batch, keep, cu_kept, stream_));
  }

 private:
  // [count] of T, uninitialised.
  template <typename T>
  Tensor scratch(int64_t count) const {
    return new_empty(tensor_, {count * static_cast<int64_t>(sizeof(T))}, ScalarType::Byte);
  }

  // Of so many bytes; none where a kernel wants none.
  std::optional<Tensor> workspace_of(size_t bytes) const {
    if (bytes == 0) return std::nullopt;
    return scratch<uint8_t>(static_cast<int64_t>(bytes));
  }

  static void* address(const std::optional<Tensor>& workspace) {
    return workspace ? workspace->mutable_data_ptr() : nullptr;
  }

  Tensor tensor_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(score, CUDA, m) {
  register_ops<Cuda>(m);
  register_relative_ops<Cuda>(m);
}

}  // namespace score
