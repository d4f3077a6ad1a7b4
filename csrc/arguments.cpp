#include "arguments.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace score {
namespace {

using torch::headeronly::ScalarType;

const char* name_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

// Checks dtype, device and number of dimensions; returns the tensor without gaps.
Tensor check_plain(
    const char* op, const char* name, const Tensor& tensor, ScalarType dtype, int64_t dim, const char* shape,
    const Tensor& beside) {
  if (tensor.scalar_type() != dtype || tensor.dim() != dim) {
    fail(op, name, "must be ", name_of(dtype), " ", shape, ", got ", describe(tensor));
  }
  if (!same_device(tensor, beside)) {
    fail(op, name, "must be on the device of the other tensors, got ", describe(tensor), " beside ", describe(beside));
  }
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

bool values_are_checked_on_devices() {
  const char* setting = std::getenv("SCORE_CHECK_VALUES");
  return setting != nullptr && std::strcmp(setting, "1") == 0;
}

// A tensor's values for checking: itself in host memory, a copy of it if values on devices are to be checked, or none.
template <typename T>
class HostValues {
 public:
  explicit HostValues(const Tensor& tensor) : size_(tensor.numel()) {
    if (tensor.is_cpu()) {
      tensor_ = tensor;
    } else if (values_are_checked_on_devices()) {
      tensor_ = torch::stable::to(tensor, torch::stable::Device(torch::headeronly::DeviceType::CPU));
    }
  }
  explicit operator bool() const { return tensor_.has_value(); }
  const T* begin() const { return static_cast<const T*>(tensor_->const_data_ptr()); }
  const T* end() const { return begin() + size_; }
  T operator[](int64_t i) const { return begin()[i]; }

 private:
  int64_t size_;
  std::optional<Tensor> tensor_;
};

Tensor check_offsets_shape(const char* op, const Tensor& cu_seqlens, const Tensor& beside) {
  const Tensor checked = check_plain(op, "cu_seqlens", cu_seqlens, ScalarType::Int, 1, "[num_videos + 1]", beside);
  if (checked.size(0) < 2) {
    fail(op, "cu_seqlens", "must hold at least one video ([0, length]), got ", describe(checked));
  }
  return checked;
}

Tensor check_budgets_shape(const char* op, const Tensor& keep, const Tensor& cu_seqlens) {
  const Tensor checked = check_plain(op, "keep", keep, ScalarType::Int, 1, "[num_videos]", cu_seqlens);
  if (checked.size(0) != cu_seqlens.size(0) - 1) {
    fail(op, "keep", "must be [", cu_seqlens.size(0) - 1, "], one budget for each video, got ", describe(checked));
  }
  return checked;
}

void check_rising(const char* op, const HostValues<int32_t>& cu_seqlens, int64_t size) {
  if (cu_seqlens[0] != 0) fail(op, "cu_seqlens", "must begin with 0, got ", cu_seqlens[0]);
  for (int64_t i = 1; i < size; ++i) {
    if (cu_seqlens[i] < cu_seqlens[i - 1]) {
      fail(op, "cu_seqlens", "must not fall, got ", cu_seqlens[i - 1], " then ", cu_seqlens[i], " at ", i);
    }
  }
}

// The sum of keep, if every budget is within its video; nothing where values are not looked at.
std::optional<int64_t> check_budget_values(const char* op, const Tensor& keep, const Tensor& cu_seqlens) {
  const HostValues<int32_t> values(keep), offsets(cu_seqlens);
  if (!values || !offsets) return std::nullopt;
  int64_t sum = 0;
  for (int64_t video = 0; video < keep.size(0); ++video) {
    const int64_t tokens = int64_t{offsets[video + 1]} - offsets[video];
    if (values[video] < 0 || values[video] > tokens) {
      fail(op, "keep", "must be 0 .. ", tokens, " for video ", video, " of so many tokens, got ", values[video]);
    }
    sum += values[video];
  }
  return sum;
}

Tensor check_cu_seqlens(const char* op, const Tensor& cu_seqlens, const Tensor& rows) {
  const int64_t length = rows.size(0);
  const Tensor checked = check_offsets_shape(op, cu_seqlens, rows);
  if (length > std::numeric_limits<int32_t>::max()) {
    fail(op, "cu_seqlens", "is int32 and cannot address ", length, " rows; split the batch");
  }
  const HostValues<int32_t> values(checked);
  if (!values) return checked;
  check_rising(op, values, checked.size(0));
  const int64_t videos = checked.size(0) - 1;
  if (values[videos] != length) {
    fail(op, "cu_seqlens", "must end with the number of rows, ", length, ", got ", values[videos]);
  }
  return checked;
}

void check_rows(const char* op, int64_t begin, int64_t end, const PackedTokens& packed) {
  const int64_t length = packed.tokens.size(0);
  if (begin < 0 || begin > end || end > length) {
    fail(op, "begin", "and end must be a range within 0 .. ", length, ", got ", begin, " .. ", end);
  }
}

Tensor check_features(const char* op, const Tensor& features, const PackedTokens& packed) {
  const int64_t length = packed.tokens.size(0);
  const Tensor checked =
      check_plain(op, "features", features, ScalarType::Float, 2, "[num_tokens, num_features]", packed.tokens);
  if (checked.size(0) != length) {
    fail(op, "features", "must have a row for each of ", length, " tokens, got ", describe(checked));
  }
  return checked;
}

}  // namespace

std::string describe(const Tensor& tensor) {
  std::string text = std::string(name_of(tensor.scalar_type())) + " [";
  for (int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
  text += std::string("] on ") + (tensor.is_cpu() ? "cpu" : tensor.is_cuda() ? "cuda:" : "another device");
  if (tensor.is_cuda()) text += std::to_string(tensor.get_device_index());
  return text;
}

bool same_device(const Tensor& a, const Tensor& b) {
  return a.device().type() == b.device().type() && a.get_device_index() == b.get_device_index();
}

DType token_dtype(const char* op, const char* name, ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Half:
      return DType::kFloat16;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    default:
      fail(op, name, "must be float32, float16 or bfloat16, got ", name_of(dtype));
  }
}

TokenBatch VideoTokens::batch() const {
  return {
      tokens.const_data_ptr(),
      token_dtype("batch", "tokens", tokens.scalar_type()),
      tokens.size(1),
      static_cast<const int32_t*>(cu_seqlens.const_data_ptr()),
      nullptr,
      cu_seqlens.size(0) - 1,
      tokens.size(0)};
}

Tensor check_token_matrix(const char* op, const Tensor& tokens) {
  token_dtype(op, "tokens", tokens.scalar_type());
  if (tokens.dim() != 2) fail(op, "tokens", "must be [num_tokens, width], got ", describe(tokens));
  if (tokens.size(1) == 0) fail(op, "tokens", "must be at least 1 wide, got ", describe(tokens));
  return tokens.is_contiguous() ? tokens : torch::stable::contiguous(tokens);
}

VideoTokens check_video_tokens(const char* op, const Tensor& tokens, const Tensor& cu_seqlens) {
  const Tensor plain = check_token_matrix(op, tokens);
  return {plain, check_cu_seqlens(op, cu_seqlens, tokens)};
}

TokenBatch PackedTokens::batch() const {
  TokenBatch batch = VideoTokens{tokens, cu_seqlens}.batch();
  batch.tokens_per_frame = static_cast<const int32_t*>(tokens_per_frame.const_data_ptr());
  return batch;
}

PackedTokens check_tokens(
    const char* op, const Tensor& tokens, const Tensor& cu_seqlens, const Tensor& tokens_per_frame) {
  const auto [plain, cu] = check_video_tokens(op, tokens, cu_seqlens);
  const int64_t videos = cu.size(0) - 1;
  const Tensor frames =
      check_plain(op, "tokens_per_frame", tokens_per_frame, ScalarType::Int, 1, "[num_videos]", tokens);
  if (frames.size(0) != videos) {
    fail(op, "tokens_per_frame", "must be [", videos, "], one for each video, got ", describe(frames));
  }
  const HostValues<int32_t> offsets(cu), values(frames);
  if (values && offsets) {
    for (int64_t video = 0; video < videos; ++video) {
      const int64_t length = offsets[video + 1] - offsets[video];
      if (values[video] < (length > 0 ? 1 : 0)) {
        fail(op, "tokens_per_frame", "must be at least 1, got ", values[video], " for video ", video);
      }
      if (length > 0 && length % values[video] != 0) {
        fail(
            op, "tokens_per_frame", "must divide the video's length, got ", values[video], " for video ", video, " of ",
            length, " tokens");
      }
    }
  }
  return {plain, cu, frames};
}

PackedBatch PackedScores::batch() const {
  return {static_cast<const int32_t*>(cu_seqlens.const_data_ptr()), cu_seqlens.size(0) - 1, scores.size(0)};
}

PackedScores check_scores(const char* op, const char* name, const Tensor& scores, const Tensor& cu_seqlens) {
  const Tensor checked = check_plain(op, name, scores, ScalarType::Float, 1, "[num_tokens]", scores);
  return {checked, check_cu_seqlens(op, cu_seqlens, checked)};
}

Tensor check_token_scores(const char* op, const char* name, const Tensor& scores, const Tensor& tokens) {
  const Tensor checked = check_plain(op, name, scores, ScalarType::Float, 1, "[num_tokens]", tokens);
  if (checked.size(0) != tokens.size(0)) {
    fail(op, name, "must be [", tokens.size(0), "], one for each token, got ", describe(checked));
  }
  return checked;
}

PackedBudgets check_budgets(const char* op, const Tensor& keep, const Tensor& cu_seqlens) {
  const Tensor offsets = check_offsets_shape(op, cu_seqlens, cu_seqlens);
  const Tensor budgets = check_budgets_shape(op, keep, offsets);
  if (const HostValues<int32_t> values(offsets); values) check_rising(op, values, offsets.size(0));
  check_budget_values(op, budgets, offsets);
  return {budgets, offsets};
}

Tensor check_keep(
    const char* op, const Tensor& keep, const Tensor& rows, const Tensor& cu_seqlens, int64_t total_keep) {
  const Tensor checked = check_budgets_shape(op, keep, cu_seqlens);
  const int64_t length = rows.size(0);
  // The budgets first: where the total was left out it is their sum, and theirs is the fault.
  const std::optional<int64_t> sum = check_budget_values(op, checked, cu_seqlens);
  if (total_keep < 0 || total_keep > length) {
    fail(op, "total_keep", "must be 0 .. ", length, " (the number of tokens), got ", total_keep);
  }
  if (sum.has_value() && *sum != total_keep) {
    fail(op, "total_keep", "must be the sum of keep, ", *sum, ", got ", total_keep);
  }
  return checked;
}

Tensor check_seed(const char* op, const Tensor& seed, const PackedScores& packed) {
  const int64_t videos = packed.cu_seqlens.size(0) - 1;
  Tensor checked = check_plain(op, "seed", seed, ScalarType::Long, 1, "[1] or [num_videos]", packed.scores);
  if (checked.size(0) != 1 && checked.size(0) != videos) {
    fail(op, "seed", "must be [1] or [", videos, "], got ", describe(checked));
  }
  return checked;
}

Tensor check_index(const char* op, const Tensor& index, const Tensor& rows) {
  const Tensor checked = check_plain(op, "index", index, ScalarType::Long, 1, "[num_kept]", rows);
  const HostValues<int64_t> values(checked);
  if (!values) return checked;
  const int64_t num_rows = rows.size(0);
  for (const int64_t row : values) {
    if (row < 0 || row >= num_rows) fail(op, "index", "must hold rows 0 .. ", num_rows - 1, ", got ", row);
  }
  return checked;
}

PackedOrder check_order(const char* op, const Tensor& order, const Tensor& keep, const PackedScores& packed) {
  const Tensor checked =
      check_plain(op, "order", order, ScalarType::Long, 2, "[num_samples, total_keep]", packed.scores);
  check_num_samples(op, checked.size(0));
  const Tensor budget = check_budgets_shape(op, keep, packed.cu_seqlens);
  const int64_t most = packed.scores.size(0);
  const int64_t sum = check_budget_values(op, budget, packed.cu_seqlens).value_or(std::min(most, checked.size(1)));
  if (sum != checked.size(1)) {
    fail(op, "order", "must be [num_samples, ", sum, "], a column for each token kept, got ", describe(order));
  }
  const HostValues<int64_t> rows(checked);
  const HostValues<int32_t> budgets(budget), offsets(packed.cu_seqlens);
  if (!rows || !budgets || !offsets) return {checked, budget};
  const int64_t videos = budget.size(0), samples = checked.size(0), total = checked.size(1);
  std::vector<uint8_t> seen(packed.scores.size(0));
  for (int64_t sample = 0; sample < samples; ++sample) {
    std::fill(seen.begin(), seen.end(), uint8_t{0});
    int64_t at = sample * total;
    for (int64_t video = 0; video < videos; ++video) {
      for (int64_t j = 0; j < budgets[video]; ++j, ++at) {
        const int64_t row = rows[at];
        if (row < offsets[video] || row >= offsets[video + 1] || seen[row]) {
          fail(
              op, "order", "must hold rows of video ", video, ", ", offsets[video], " .. ", offsets[video + 1] - 1,
              ", each once, got ", row, " in sample ", sample);
        }
        seen[row] = 1;
      }
    }
  }
  return {checked, budget};
}

Tensor check_grad(const char* op, const Tensor& grad, int64_t num_samples, const PackedScores& packed) {
  const int64_t videos = packed.cu_seqlens.size(0) - 1;
  const Tensor checked =
      check_plain(op, "grad", grad, ScalarType::Float, 2, "[num_samples, num_videos]", packed.scores);
  if (checked.size(0) != num_samples || checked.size(1) != videos) {
    fail(op, "grad", "must be [", num_samples, ", ", videos, "], got ", describe(checked));
  }
  return checked;
}

CheckedState check_state(
    const char* op, const PackedTokens& packed, const std::optional<Tensor>& features, int64_t begin, int64_t end,
    bool use_token, bool use_residual, double epsilon) {
  check_rows(op, begin, end, packed);
  if (!(epsilon > 0.0)) fail(op, "epsilon", "must be positive, got ", epsilon);
  CheckedState state{{use_token, use_residual, nullptr, 0, static_cast<float>(epsilon)}, packed.tokens};
  if (features.has_value()) {
    state.features = check_features(op, *features, packed);
    state.parts.features = static_cast<const float*>(state.features.const_data_ptr());
    state.parts.features_width = state.features.size(1);
  }
  if (state.parts.columns(packed.tokens.size(1)) == 0) {
    fail(op, "use_token", "and use_residual are both off and there are no features: the state is empty");
  }
  return state;
}

RelativeVideos check_relative(const char* op, const PackedTokens& packed, const Tensor& columns, int64_t num_frames) {
  const Tensor checked = check_plain(op, "columns", columns, ScalarType::Int, 1, "[num_videos]", packed.tokens);
  const int64_t videos = packed.tokens_per_frame.size(0);
  if (checked.size(0) != videos) {
    fail(op, "columns", "must be [", videos, "], one for each video, got ", describe(checked));
  }
  if (num_frames < 0 || num_frames > packed.tokens.size(0)) {
    fail(op, "num_frames", "must be 0 .. ", packed.tokens.size(0), " (the number of tokens), got ", num_frames);
  }
  const HostValues<int32_t> offsets(packed.cu_seqlens), frames(packed.tokens_per_frame), values(checked);
  if (!offsets || !frames || !values) return {checked, num_frames};
  int64_t sum = 0;
  for (int64_t video = 0; video < videos; ++video) {
    const int64_t length = offsets[video + 1] - offsets[video];
    if (length == 0 ? values[video] < 0 : values[video] < 1 || frames[video] % values[video] != 0) {
      fail(
          op, "columns", "must divide the tokens of a frame, ", frames[video], " for video ", video, ", got ",
          values[video]);
    }
    sum += length == 0 ? 0 : length / frames[video];
  }
  if (sum != num_frames) {
    fail(op, "num_frames", "must be the frames of all videos, ", sum, ", got ", num_frames);
  }
  return {checked, num_frames};
}

CheckedMeasures check_measures(
    const char* op, const Tensor& measures, const Tensor& moments, const Tensor& cu_seqlens,
    const Tensor& tokens_per_frame, const Tensor& columns) {
  const Tensor plain = check_plain(op, "measures", measures, ScalarType::Float, 2, "[num_tokens, 13]", measures);
  if (plain.size(1) != kMeasures) fail(op, "measures", "must be [num_tokens, 13], got ", describe(plain));
  const PackedTokens packed = check_tokens(op, plain, cu_seqlens, tokens_per_frame);
  const Tensor checked =
      check_plain(op, "moments", moments, ScalarType::Double, 3, "[num_frames + num_videos, 13, 2]", plain);
  const int64_t videos = packed.tokens_per_frame.size(0);
  if (checked.size(0) < videos || checked.size(1) != kMeasures || checked.size(2) != 2) {
    fail(op, "moments", "must be [num_frames + ", videos, ", 13, 2], got ", describe(checked));
  }
  return {packed, check_relative(op, packed, columns, checked.size(0) - videos), checked};
}

CheckedRelativeState check_relative_state(
    const char* op, const PackedTokens& packed, const std::optional<Tensor>& features, int64_t begin, int64_t end,
    bool use_token, bool use_residual, bool use_position) {
  check_rows(op, begin, end, packed);
  CheckedRelativeState state{{use_residual, use_token, use_position, nullptr, 0}, packed.tokens};
  if (features.has_value()) {
    state.features = check_features(op, *features, packed);
    state.parts.features = static_cast<const float*>(state.features.const_data_ptr());
    state.parts.num_features = state.features.size(1);
  }
  if (state.parts.columns() == 0) {
    fail(op, "use_token", "use_residual and use_position are all off and there are no features: the state is empty");
  }
  return state;
}

PixelBatch check_pixels(const char* op, const Tensor& pixels, int64_t rows, int64_t columns) {
  const ScalarType dtype = pixels.scalar_type();
  const bool floating = dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
  if ((dtype != ScalarType::Byte && !floating) || pixels.dim() != 5) {
    fail(
        op, "pixels", "must be uint8, float32, float16 or bfloat16 [pictures, channels, frames, height, width], got ",
        describe(pixels));
  }
  PixelBatch batch{pixels.const_data_ptr(), PixelType::kUInt8, {}, {}, rows, columns};
  if (floating) {
    batch.type = dtype == ScalarType::Float  ? PixelType::kFloat32
                 : dtype == ScalarType::Half ? PixelType::kFloat16
                                             : PixelType::kBFloat16;
  }
  for (int64_t dim = 0; dim < 5; ++dim) {
    batch.sizes[dim] = pixels.size(dim);
    batch.strides[dim] = pixels.stride(dim);
  }
  if (batch.sizes[2] < 1 || batch.sizes[3] < 1 || batch.sizes[4] < 1) {
    fail(op, "pixels", "must have at least one frame of one pixel, got ", describe(pixels));
  }
  check_size(op, "rows", rows);
  check_size(op, "columns", columns);
  return batch;
}

void check_size(const char* op, const char* name, int64_t size) {
  if (size < 1 || size > std::numeric_limits<int32_t>::max()) fail(op, name, "must be 1 .. 2147483647, got ", size);
}

Metric parse_metric(const char* op, const std::string& metric) {
  if (metric == "cosine") return Metric::kCosine;
  if (metric == "l2") return Metric::kL2;
  fail(op, "metric", "must be 'cosine' or 'l2', got '", metric, "'");
}

SelectionRule parse_selection(const char* op, const std::string& selection) {
  if (selection == "topk") return SelectionRule::kTopK;
  if (selection == "systematic") return SelectionRule::kSystematic;
  fail(op, "selection", "must be 'topk' or 'systematic', got '", selection, "'");
}

void check_offset(const char* op, double offset) {
  if (!(offset >= 0.0 && offset < 1.0)) fail(op, "offset", "must be in [0, 1), got ", offset);
}

void check_num_samples(const char* op, int64_t num_samples) {
  if (num_samples < 1 || num_samples > std::numeric_limits<int32_t>::max()) {
    fail(op, "num_samples", "must be 1 .. 2147483647, got ", num_samples);
  }
}

}  // namespace score
