// What each .cu file offers: a launcher for each op. Raw device pointers and sizes in; every launch goes to `stream`,
// nothing waits for the device. Arguments were checked as far as the host can see them; values that lie on the device
// (offsets, budgets, indices) were not, so kernels clamp them and never touch memory outside of their tensors.
#pragma once

#include <cuda_runtime_api.h>

#include "score/packed.h"
#include "score/relative.h"
#include "score/types.h"

namespace score::cuda {

// out [num_tokens] float. Tokens of a first frame get `first`.
cudaError_t surprise(const TokenBatch& batch, Metric metric, float first, float* out, cudaStream_t stream);

// Rows begin .. end of the policy's state, out [end - begin, parts.columns(width)] in out_dtype.
cudaError_t policy_state(
    const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType out_dtype, void* out,
    cudaStream_t stream);

// measures [num_tokens, kMeasures] and moments [num_frames + num_videos, kMeasures, 2], as the CPU's. Called twice, as
// CUB does it: with workspace null it only sets *workspace_bytes.
cudaError_t relative_measures(
    const RelativeBatch& batch, float* measures, double* moments, void* workspace, size_t* workspace_bytes,
    cudaStream_t stream);

// Rows begin .. end of the relative state, out [end - begin, parts.columns()] in out_dtype.
cudaError_t relative_rows(
    const RelativeBatch& batch, const float* measures, const double* moments, const RelativeParts& parts, int64_t begin,
    int64_t end, DType out_dtype, void* out, cudaStream_t stream);

// How much memory select wants as its workspace; 0: none, null.
cudaError_t select_workspace(const PackedBatch& batch, int64_t total_keep, SelectionRule selection, size_t* bytes);

// index [total_keep] int64: of each video the keep[b] rows that the rule picks, ascending.
cudaError_t select(
    const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, SelectionRule selection,
    double offset, int64_t* index, void* workspace, cudaStream_t stream);

// index [total_keep] int64: of each video the keep[b] rows of a farthest-first traversal, ascending or, where
// `ordered`, as they were taken. weights [num_tokens], or null: distances count as they are. Called twice, as CUB does
// it: with workspace null it only sets *workspace_bytes.
cudaError_t divprune(
    const TokenBatch& tokens, const int32_t* keep, int64_t total_keep, bool ordered, const float* weights,
    int64_t* index, void* workspace, size_t* workspace_bytes, cudaStream_t stream);

// index, order [num_samples, total_keep] int64: Gumbel top-k, ascending and in the order of drawing.
// seed [num_seeds] with num_seeds 1 (then the video's number is part of the key) or num_videos (then it is not).
// Called twice, as CUB does it: with workspace null it only sets *workspace_bytes.
cudaError_t gumbel_topk(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order, void* workspace, size_t* workspace_bytes,
    cudaStream_t stream);

// How much memory the two below want as their workspace; 0: none, null.
size_t plackett_luce_workspace(const PackedBatch& batch, int64_t num_samples);

// log_prob [num_samples, num_videos]: of drawing `order` [num_samples, total_keep] without replacement.
// rank [num_samples, num_tokens] is scratch.
cudaError_t plackett_luce_log_prob(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, int32_t* rank, float* log_prob, void* workspace, cudaStream_t stream);

// grad_logits [num_tokens], from grad [num_samples, num_videos]. rank is scratch as above, log_shares
// [num_samples, total_keep] too.
cudaError_t plackett_luce_log_prob_backward(
    const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
    int64_t num_samples, const int64_t* order, int32_t* rank, double* log_shares, float* grad_logits, void* workspace,
    cudaStream_t stream);

// How much memory sample_bernoulli wants as its workspace; 0: none, null.
size_t sample_bernoulli_workspace(const PackedBatch& batch, int64_t num_samples);

// mask [num_samples, num_tokens], log_prob [num_samples, num_videos], count [num_samples, num_videos].
cudaError_t sample_bernoulli(
    const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
    bool* mask, float* log_prob, int32_t* count, void* workspace, cudaStream_t stream);

// out [num_rows, row_bytes]: row index[i] of tokens [num_tokens, row_bytes]; zeros where index[i] is no row of it.
cudaError_t gather(
    const void* tokens, int64_t num_tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out,
    cudaStream_t stream);

// out [N, C, rows, columns]: the mean of each cell over the frames, as the CPU's but for the order of the sums.
cudaError_t thumbnails(const PixelBatch& batch, float* out, cudaStream_t stream);

// out [rows, width], the CPU's to the bit.
cudaError_t count_sketch(const TokenMatrix& tokens, int64_t width, float* out, cudaStream_t stream);

// cu_kept [num_videos + 1]: running sum of keep, each clamped as select clamps it.
cudaError_t kept_offsets(const PackedBatch& batch, const int32_t* keep, int32_t* cu_kept, cudaStream_t stream);

}  // namespace score::cuda
