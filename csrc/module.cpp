// What is not a tensor: facts about the build, and budget arithmetic on the host.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace {

void check_grid(int64_t frames, int64_t tokens_per_frame) {
  if (frames < 0 || tokens_per_frame < 0) {
    throw std::invalid_argument(
        "frames and tokens_per_frame must not be negative, got " + std::to_string(frames) + " and " +
        std::to_string(tokens_per_frame));
  }
  if (tokens_per_frame > 0 && frames > INT32_MAX / tokens_per_frame) {
    throw std::invalid_argument(
        "frames * tokens_per_frame must fit int32, got " + std::to_string(frames) + " * " +
        std::to_string(tokens_per_frame));
  }
}

void check_fraction(const char* name, double value, bool zero_allowed) {
  const bool low = zero_allowed ? value >= 0.0 : value > 0.0;
  const bool high = zero_allowed ? value < 1.0 : value <= 1.0;
  if (low && high) return;
  throw std::invalid_argument(
      std::string(name) + " must be in " + (zero_allowed ? "[0, 1)" : "(0, 1]") + ", got " + std::to_string(value));
}

int64_t keep_count(int64_t frames, int64_t tokens_per_frame, double retention) {
  check_grid(frames, tokens_per_frame);
  check_fraction("retention", retention, false);
  const int64_t tokens = frames * tokens_per_frame;
  if (tokens == 0) return 0;
  return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(tokens) * retention));
}

int64_t evs_count(int64_t frames, int64_t tokens_per_frame, double pruning_rate) {
  check_grid(frames, tokens_per_frame);
  check_fraction("pruning_rate", pruning_rate, true);
  const int64_t tokens = frames * tokens_per_frame;
  return std::max(tokens == 0 ? 0 : tokens_per_frame, static_cast<int64_t>(tokens * (1.0 - pruning_rate)));
}

int64_t vidcom2_count(int64_t frames, int64_t tokens_per_frame, double pruning_rate) {
  check_grid(frames, tokens_per_frame);
  check_fraction("pruning_rate", pruning_rate, true);
  const int64_t tokens = frames * tokens_per_frame;
  return std::max(tokens == 0 ? 0 : frames, std::min(static_cast<int64_t>(tokens * (1.0 - pruning_rate)), tokens));
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = SCORE_VERSION;
  info["compiler"] = SCORE_COMPILER;
  info["torch_headers"] = SCORE_TORCH_VERSION;
  info["cuda"] = SCORE_CUDA_VERSION;  // empty where the CUDA library was not built
  info["cuda_architectures"] = SCORE_CUDA_ARCHITECTURES;
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  namespace py = pybind11;
  m.doc() = "Facts about the build, and budget arithmetic on the host.";
  m.def("build_info", &build_info, "What this library was built from and for.");
  m.def("keep_count", &keep_count, py::arg("frames"), py::arg("tokens_per_frame"), py::arg("retention"));
  m.def("evs_count", &evs_count, py::arg("frames"), py::arg("tokens_per_frame"), py::arg("pruning_rate"));
  m.def("vidcom2_count", &vidcom2_count, py::arg("frames"), py::arg("tokens_per_frame"), py::arg("pruning_rate"));
}
