// Every op's schema, and the CPU registrations. Shapes, for all of them: a batch of B videos is packed,
// L tokens in all, cu_seqlens int32 [B + 1], tokens_per_frame int32 [B], keep int32 [B] summing to total_keep = K;
// G is num_samples. docs/ops.md has the contracts, score_ext the typed functions, score_ext.reference plain torch.
#include "bindings.h"
#include "cpu/kernels.h"

namespace score {

STABLE_TORCH_LIBRARY(score, m) {
  // tokens [L, D] -> float32 [L]; first None is +inf, which a schema cannot spell
  m.def(
      "surprise(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, str metric=\"cosine\", "
      "float? first=None) -> Tensor");
  // rows begin .. end of [LayerNorm(x) ; LayerNorm(dx) ; features], features float32 [L, P] -> dtype [end - begin, S]
  m.def(
      "policy_state(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor? features, SymInt begin, "
      "SymInt end, ScalarType dtype, bool use_token=True, bool use_residual=True, float epsilon=1e-5) -> Tensor");
  // The state through one or two hidden layers: w1 [H1, S], b1 [H1], w2 [H2, H1], b2 [H2], w_out [1, H], b_out [1]
  // -> float32 [L]
  m.def(
      "policy_logits(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor w1, Tensor b1, Tensor? w2, "
      "Tensor? b2, Tensor w_out, Tensor b_out, Tensor? features=None, bool use_token=True, bool use_residual=True, "
      "float epsilon=1e-5) -> Tensor");
  // columns int32 [B], num_frames T of all videos -> float32 [L, 43], what a token is like beside others of its video
  m.def(
      "relative_state(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor columns, SymInt num_frames) -> "
      "Tensor");
  // That state, position and features float32 [L, P] through the layers of policy_logits -> float32 [L]
  m.def(
      "relative_logits(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor columns, SymInt num_frames, "
      "Tensor w1, Tensor b1, Tensor? w2, Tensor? b2, Tensor w_out, Tensor b_out, Tensor? features=None, "
      "bool use_token=True, bool use_residual=True, bool use_position=True) -> Tensor");
  // What the two are made of: measures float32 [L, 13], moments float64 [T + B, 13, 2] (csrc/include/score/relative.h)
  m.def(
      "relative_measures(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor columns, "
      "SymInt num_frames) -> (Tensor measures, Tensor moments)");
  // Rows begin .. end of the state, from those -> dtype [end - begin, S]
  m.def(
      "relative_rows(Tensor measures, Tensor moments, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor columns, "
      "Tensor? features, SymInt begin, SymInt end, ScalarType dtype, bool use_token=True, bool use_residual=True, "
      "bool use_position=True) -> Tensor");
  // scores float32 [L] -> int64 [K], ascending
  m.def(
      "select(Tensor scores, Tensor cu_seqlens, Tensor keep, SymInt total_keep, str selection=\"topk\", "
      "float offset=0.5) -> Tensor");
  // tokens [L, D], weights float32 [L] -> int64 [K], ascending or as they were taken
  m.def(
      "divprune(Tensor tokens, Tensor cu_seqlens, Tensor keep, SymInt total_keep, bool ordered=False, "
      "Tensor? weights=None) -> Tensor");
  // logits float32 [L], seed int64 [1] or [B] -> index int64 [G, K] ascending, order int64 [G, K] as drawn
  m.def(
      "gumbel_topk(Tensor logits, Tensor cu_seqlens, Tensor keep, SymInt num_samples, Tensor seed, "
      "SymInt total_keep) -> (Tensor index, Tensor order)");
  // order int64 [G, K] -> log-probability float32 [G, B]
  m.def("plackett_luce_log_prob(Tensor logits, Tensor cu_seqlens, Tensor keep, Tensor order) -> Tensor");
  // grad float32 [G, B] -> float32 [L]
  m.def(
      "plackett_luce_log_prob_backward(Tensor grad, Tensor logits, Tensor cu_seqlens, Tensor keep, Tensor order) -> "
      "Tensor");
  // gumbel_topk and plackett_luce_log_prob in one -> index int64 [G, K] ascending, log_prob float32 [G, B]
  m.def(
      "gumbel_topk_with_log_prob(Tensor logits, Tensor cu_seqlens, Tensor keep, SymInt num_samples, Tensor seed, "
      "SymInt total_keep) -> (Tensor index, Tensor log_prob)");
  // -> mask bool [G, L], log_prob float32 [G, B], count int32 [G, B]
  m.def(
      "sample_bernoulli(Tensor logits, Tensor cu_seqlens, SymInt num_samples, Tensor seed) -> "
      "(Tensor mask, Tensor log_prob, Tensor count)");
  // tokens [L, ...] of any dtype, index int64 [K] -> [K, ...]
  m.def("gather(Tensor tokens, Tensor index) -> Tensor");
  // pixels [N, C, F, H, W] uint8, float32, float16 or bfloat16 -> float32 [N, C, rows, columns], means of cells
  m.def("thumbnails(Tensor pixels, SymInt rows, SymInt columns) -> Tensor");
  // tokens [L, D] -> float32 [L, width], sums of every width-th column, with signs
  m.def("count_sketch(Tensor tokens, SymInt width) -> Tensor");
  // keep int32 [B] -> int32 [B + 1], its running sum from 0
  m.def("kept_offsets(Tensor cu_seqlens, Tensor keep) -> Tensor");
  // surprise (unless scores are given), select and gather in one -> kept [K, D], index int64 [K], cu_kept int32 [B + 1]
  m.def(
      "compress(Tensor tokens, Tensor cu_seqlens, Tensor tokens_per_frame, Tensor keep, SymInt total_keep, "
      "Tensor? scores=None, str selection=\"topk\", float offset=0.5) -> (Tensor kept, Tensor index, Tensor cu_kept)");
}

namespace {

// The CPU's kernels as bindings.h calls them.
class Cpu {
 public:
  explicit Cpu(const Tensor&) {}

  void surprise(const TokenBatch& batch, Metric metric, float first, float* out) {
    cpu::surprise(batch, metric, first, out);
  }
  void policy_state(
      const TokenBatch& batch, const StateParts& parts, int64_t begin, int64_t end, DType dtype, void* out) {
    cpu::policy_state(batch, parts, begin, end, dtype, out);
  }
  void relative_measures(const RelativeBatch& batch, float* measures, double* moments) {
    cpu::relative_measures(batch, measures, moments);
  }
  void relative_rows(
      const RelativeBatch& batch, const float* measures, const double* moments, const RelativeParts& parts,
      int64_t begin, int64_t end, DType dtype, void* out) {
    cpu::relative_rows(batch, measures, moments, parts, begin, end, dtype, out);
  }
  void select(
      const float* scores, const PackedBatch& batch, const int32_t* keep, int64_t, SelectionRule selection,
      double offset, int64_t* index) {
    cpu::select(scores, batch, keep, selection, offset, index);
  }
  void divprune(
      const TokenBatch& batch, const int32_t* keep, int64_t, bool ordered, const float* weights, int64_t* index) {
    cpu::divprune(batch, keep, ordered, weights, index);
  }
  void gumbel_topk(
      const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
      const int64_t* seed, int64_t num_seeds, int64_t* index, int64_t* order) {
    cpu::gumbel_topk(logits, batch, keep, total_keep, num_samples, seed, num_seeds, index, order);
  }
  void plackett_luce_log_prob(
      const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep, int64_t num_samples,
      const int64_t* order, float* log_prob) {
    cpu::plackett_luce_log_prob(logits, batch, keep, total_keep, num_samples, order, log_prob);
  }
  void plackett_luce_log_prob_backward(
      const float* grad, const float* logits, const PackedBatch& batch, const int32_t* keep, int64_t total_keep,
      int64_t num_samples, const int64_t* order, float* grad_logits) {
    cpu::plackett_luce_log_prob_backward(grad, logits, batch, keep, total_keep, num_samples, order, grad_logits);
  }
  void sample_bernoulli(
      const float* logits, const PackedBatch& batch, int64_t num_samples, const int64_t* seed, int64_t num_seeds,
      bool* mask, float* log_prob, int32_t* count) {
    cpu::sample_bernoulli(logits, batch, num_samples, seed, num_seeds, mask, log_prob, count);
  }
  void gather(const void* tokens, int64_t, int64_t row_bytes, const int64_t* index, int64_t num_rows, void* out) {
    cpu::gather(tokens, row_bytes, index, num_rows, out);
  }
  void thumbnails(const PixelBatch& batch, float* out) { cpu::thumbnails(batch, out); }
  void count_sketch(const TokenMatrix& tokens, int64_t width, float* out) { cpu::count_sketch(tokens, width, out); }
  void kept_offsets(const PackedBatch& batch, const int32_t* keep, int32_t* cu_kept) {
    cu_kept[0] = 0;
    for (int64_t video = 0; video < batch.num_videos; ++video) cu_kept[video + 1] = cu_kept[video] + keep[video];
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(score, CPU, m) {
  register_ops<Cpu>(m);
  register_relative_ops<Cpu>(m);
}

}  // namespace score
