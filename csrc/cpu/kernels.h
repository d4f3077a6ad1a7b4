// What each .cpp file offers: one function per kernel, the same contracts as cuda/kernels.h. Raw pointers and sizes
// in, no torch header; every argument was checked by the bindings, values included.
#pragma once

#include "score/packed.h"
#include "score/relative.h"
#include "score/types.h"

namespace score::cpu {

// out [num_tokens] float. Tokens of a first frame get `first`.
void surprise(const TokenBatch& batch, Metric metric, float first, float* out);

// Rows begin .. end of the policy's state, out [end - begin, parts.columns(width)] in out_dtype.
void policy_state(
    const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType out_dtype, void* out);

// logits [num_tokens] float: the network on that state, which is never formed.
void policy_logits(const TokenBatch& batch, const StateParts& parts, const NetworkLayers& layers, float* logits);

// measures [num_tokens, kMeasures]; a cosine to what is not there is 0. moments [num_frames + num_videos, kMeasures,
// 2]: mean and 1 / sqrt(variance + kLeastVariance) over those tokens of each frame, then of each video, that have it.
void relative_measures(const RelativeBatch& batch, float* measures, double* moments);

// Rows begin .. end of the state, out [end - begin, parts.columns()] in out_dtype.
void relative_rows(
    const RelativeBatch& batch, const float* measures, const double* moments, const RelativeParts& parts, int64_t begin,
    int64_t end, DType out_dtype, void* out);

// index [sum of keep] int64: of each video the keep[b] rows that the rule picks, ascending.
void select(
    const float* scores, const PackedBatch& batch, const int32_t* keep, SelectionRule selection, double offset,
    int64_t* index);

// index [sum of keep] int64: of each video the keep[b] rows of a farthest-first traversal, ascending or, where
// `ordered`, as they were taken.
void divprune(const TokenBatch& batch, const int32_t* keep, bool ordered, const float* weights, int64_t* index);

// index, order [num_samples, total_keep] int64: Gumbel top-k, ascending and in the order of drawing.
// seed [num_seeds] with num_seeds 1 (then the video's number is part of the key) or num_videos (then it is not).
void gumbel_topk(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order);

// log_prob [num_samples, num_videos]: of drawing `order` [num_samples, total_keep] without replacement.
void plackett_luce_log_prob(
    const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
    const int64_t* order, float* log_prob);

// grad_logits [num_tokens], from grad [num_samples, num_videos].
void plackett_luce_log_prob_backward(
    const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
    int64_t num_samples, const int64_t* order, float* grad_logits);

// mask [num_samples, num_tokens], log_prob [num_samples, num_videos], count [num_samples, num_videos].
void sample_bernoulli(
    const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
    bool* mask, float* log_prob, int32_t* count);

// out [num_rows, row_bytes]: row index[i] of tokens [num_tokens, row_bytes].
void gather(const void* tokens, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out);

// out [N, C, rows, columns]: the mean of each cell over the frames. Cell r of R has the rows floor(r H / R) up to
// ceil((r + 1) H / R), so neighbours share a row where R does not divide H; columns likewise.
void thumbnails(const PixelBatch& batch, float* out);

// out [rows, width]: column w the sum of column_sign(c) * tokens[:, c] over c = w, w + width, ..., in that order.
void count_sketch(const TokenMatrix& tokens, int64_t width, float* out);

}  // namespace score::cpu
