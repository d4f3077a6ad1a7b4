// Argument checks shared by the bindings of every device. Each returns the tensors it checked, contiguous and ready for
// a kernel; what is wrong is thrown as std::invalid_argument, a ValueError in Python, that names the op, the argument,
// what it wants and what it got.
//
// Shapes, dtypes and devices are always checked. Values (offsets, budgets, indices) are checked where they lie in host
// memory; on a GPU looking at them would wait for it, so there they are checked only if SCORE_CHECK_VALUES=1 is set in
// the environment, and the kernels clamp them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <concepts>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>

#include "score/packed.h"
#include "score/relative.h"
#include "score/types.h"

namespace score {

using torch::stable::Tensor;

// Part of an error text. No streams: where the compiler links its C++ library into ours, as it does on some machines, a
// second one is in the process, and the numbers' formatting of a stream then finds the other's and crashes.
template <typename Part>
std::string text_of(const Part& part) {
  if constexpr (std::integral<Part>) {
    return std::to_string(part);
  } else if constexpr (std::floating_point<Part>) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%g", static_cast<double>(part));
    return digits;
  } else {
    return std::string(part);
  }
}

template <typename... Parts>
[[noreturn]] void fail(const char* op, const char* argument, const Parts&... parts) {
  throw std::invalid_argument(("score." + std::string(op) + ": " + argument + " " + ... + text_of(parts)));
}

// "float32 [12, 64] on cuda:0", for error texts.
std::string describe(const Tensor& tensor);

bool same_device(const Tensor& a, const Tensor& b);

// tokens [L, D], cu_seqlens [B + 1], tokens_per_frame [B].
struct PackedTokens {
  Tensor tokens, cu_seqlens, tokens_per_frame;
  TokenBatch batch() const;
};
PackedTokens check_tokens(
    const char* op, const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame);

// tokens [L, D], cu_seqlens [B + 1]; for what frames are nothing to.
struct VideoTokens {
  Tensor tokens, cu_seqlens;
  TokenBatch batch() const;  // tokens_per_frame is null
};
VideoTokens check_video_tokens(const char* op, const Tensor& tokens, const Tensor& cu_seqlens);

// scores or logits [L] float32, cu_seqlens [B + 1].
struct PackedScores {
  Tensor scores, cu_seqlens;
  PackedBatch batch() const;
  const float* data() const { return static_cast<const float*>(scores.const_data_ptr()); }
};
PackedScores check_scores(const char* op, const char* name, const Tensor& scores, const Tensor& cu_seqlens);

// scores or weights [L] float32, beside tokens.
Tensor check_token_scores(const char* op, const char* name, const Tensor& scores, const Tensor& tokens);

// keep [B] int32, 0 .. length of each video, summing to total_keep. rows [L, ...] are what cu_seqlens divides.
Tensor check_keep(const char* op, const Tensor& keep, const Tensor& rows, const Tensor& cu_seqlens, int64_t total_keep);

// keep [B] int32 beside cu_seqlens [B + 1], without the tokens that they are about.
struct PackedBudgets {
  Tensor keep, cu_seqlens;
};
PackedBudgets check_budgets(const char* op, const Tensor& keep, const Tensor& cu_seqlens);

// seed [1] or [B] int64.
Tensor check_seed(const char* op, const Tensor& seed, const PackedScores& packed);

// index [K] int64, rows of a tensor of num_rows rows.
Tensor check_index(const char* op, const Tensor& index, const Tensor& rows);

// order [G, K] int64: K the sum of keep, rows within each video's range, none twice within a sample.
struct PackedOrder {
  Tensor order, keep;
};
PackedOrder check_order(const char* op, const Tensor& order, const Tensor& keep, const PackedScores& packed);

// grad [G, B] float32.
Tensor check_grad(const char* op, const Tensor& grad, int64_t num_samples, const PackedScores& packed);

// Rows begin .. end of the state, and its parts. features [L, P] float32 or none.
struct CheckedState {
  StateParts parts;
  Tensor features;  // keeps parts.features alive
};
CheckedState check_state(
    const char* op, const PackedTokens& packed, const std::optional<Tensor>& features, int64_t begin, int64_t end,
    bool use_token, bool use_residual, double epsilon);

// A batch whose frames are of columns [B] tokens a row and num_frames [T] in all. rows [L, ...] are what cu_seqlens
// divides: the tokens, or what was made of them.
struct RelativeVideos {
  Tensor columns;
  int64_t num_frames;
};
RelativeVideos check_relative(const char* op, const PackedTokens& packed, const Tensor& columns, int64_t num_frames);

// measures [L, 13] float32 and moments [T + B, 13, 2] float64, of relative_measures.
struct CheckedMeasures {
  PackedTokens packed;  // the measures in the tokens' place
  RelativeVideos videos;
  Tensor moments;
};
CheckedMeasures check_measures(
    const char* op, const Tensor& measures, const Tensor& moments, const Tensor& cu_seqlens,
    const Tensor& tokens_per_frame, const Tensor& columns);

// The parts of the relative state, and that begin .. end are rows of it. features [L, P] float32 or none.
struct CheckedRelativeState {
  RelativeParts parts;
  Tensor features;  // keeps parts.features alive
};
CheckedRelativeState check_relative_state(
    const char* op, const PackedTokens& packed, const std::optional<Tensor>& features, int64_t begin, int64_t end,
    bool use_token, bool use_residual, bool use_position);

// tokens [L, D], whatever they are of.
Tensor check_token_matrix(const char* op, const Tensor& tokens);

// A number of rows or columns, at least 1.
void check_size(const char* op, const char* name, int64_t size);

// pixels [N, C, F, H, W] of any strides, at least 1 frame of 1 pixel; rows and columns at least 1.
PixelBatch check_pixels(const char* op, const Tensor& pixels, int64_t rows, int64_t columns);

Metric parse_metric(const char* op, const std::string& metric);
SelectionRule parse_selection(const char* op, const std::string& selection);
DType token_dtype(const char* op, const char* name, torch::headeronly::ScalarType dtype);
void check_offset(const char* op, double offset);
void check_num_samples(const char* op, int64_t num_samples);

}  // namespace score
