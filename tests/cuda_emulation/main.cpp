// Serves calls of the launchers over stdin and stdout, so that a test in Python can drive kernels that were built with
// the sanitizers. Native byte order throughout.
//
//   request: name, number of arguments, then of each: name, kind, and
//            'i' int64, 'd' double, or 'a' an array: misalignment int64, bytes int64, contents
//   reply:   cudaError_t as int64, then of every array in the order of their names: bytes int64 (0 for what is only
//            read), contents
//
// Arrays lie in allocations that end where they end, so that a step outside of them is seen. Names and outputs: below.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "emulated_device.h"
#include "faults.h"

namespace {

struct Array {
  std::vector<unsigned char> before;  // what came in
  unsigned char* memory = nullptr;
  int64_t misalignment = 0;
  bool output = false;

  unsigned char* data() { return memory + misalignment; }
};

void read_bytes(void* to, size_t bytes) {
  if (bytes > 0 && std::fread(to, 1, bytes, stdin) != bytes) std::exit(0);  // the test is done
}

void write_bytes(const void* from, size_t bytes) { std::fwrite(from, 1, bytes, stdout); }

template <typename T>
T read_value() {
  T value;
  read_bytes(&value, sizeof(value));
  return value;
}

std::string read_name() {
  std::string name(static_cast<size_t>(read_value<int64_t>()), ' ');
  read_bytes(name.data(), name.size());
  return name;
}

// The arguments of one call, by name.
class Call {
 public:
  Call() : name(read_name()) {
    for (int64_t left = read_value<int64_t>(); left > 0; --left) {
      const std::string argument = read_name();
      const char kind = read_value<char>();
      if (kind == 'i') integers_[argument] = read_value<int64_t>();
      if (kind == 'd') doubles_[argument] = read_value<double>();
      if (kind == 'a') read_array(arrays_[argument]);
    }
  }

  ~Call() {
    for (auto& [name, array] : arrays_) emulation::release(array.memory);
  }

  int64_t integer(const char* argument) { return integers_.at(argument); }
  double number(const char* argument) { return doubles_.at(argument); }

  template <typename T>
  const T* in(const char* argument) {
    return reinterpret_cast<const T*>(arrays_.at(argument).data());
  }

  template <typename T>
  T* out(const char* argument) {
    Array& array = arrays_.at(argument);
    array.output = true;
    emulation::set_defined(array.data(), array.before.size(), false);
    return reinterpret_cast<T*>(array.data());
  }

  score::DType dtype(const char* argument) { return static_cast<score::DType>(integer(argument)); }

  score::PackedBatch packed() { return {in<int32_t>("cu_seqlens"), integer("num_videos"), integer("num_tokens")}; }

  score::TokenBatch tokens() {
    return {
        in<void>("tokens"),
        dtype("dtype"),
        integer("width"),
        in<int32_t>("cu_seqlens"),
        in<int32_t>("tokens_per_frame"),
        integer("num_videos"),
        integer("num_tokens")};
  }

  score::RelativeBatch relative() { return {tokens(), in<int32_t>("columns"), integer("num_frames")}; }

  void reply(int64_t error) {
    write_bytes(&error, sizeof(error));
    for (auto& [name, array] : arrays_) {
      const int64_t bytes = static_cast<int64_t>(array.before.size());
      if (!array.output) {
        if (bytes > 0 && std::memcmp(array.data(), array.before.data(), array.before.size()) != 0) {
          emulation::fail("%s changed its input %s", this->name.c_str(), name.c_str());
        }
      }
      const int64_t written = array.output ? bytes : 0;
      write_bytes(&written, sizeof(written));
      write_bytes(array.data(), static_cast<size_t>(written));
    }
    std::fflush(stdout);
  }

  const std::string name;

 private:
  void read_array(Array& array) {
    array.misalignment = read_value<int64_t>();
    array.before.resize(static_cast<size_t>(read_value<int64_t>()));
    read_bytes(array.before.data(), array.before.size());
    array.memory = static_cast<unsigned char*>(emulation::allocate(array.before.size() + array.misalignment));
    if (!array.before.empty()) std::memcpy(array.data(), array.before.data(), array.before.size());
    emulation::set_defined(array.data(), array.before.size(), true);
  }

  std::map<std::string, int64_t> integers_;
  std::map<std::string, double> doubles_;
  std::map<std::string, Array> arrays_;
};

// What an op allocates for itself: nothing in it until a kernel writes it.
struct Scratch {
  explicit Scratch(size_t bytes) : memory(bytes > 0 ? emulation::allocate(bytes) : nullptr) {}
  Scratch(const Scratch&) = delete;
  ~Scratch() {
    if (memory != nullptr) emulation::release(memory);
  }

  void* const memory;
};

using Launcher = cudaError_t (*)(Call&);

const std::map<std::string, Launcher> kLaunchers = {
    {"device",
     [](Call& c) {
       emulation::device.multiprocessors = static_cast<int>(c.integer("resident_blocks"));
       emulation::device.backwards = c.integer("backwards") != 0;
       emulation::device.shared_bytes = static_cast<int>(c.integer("shared_bytes"));
       return cudaSuccess;
     }},
    {"fault",
     [](Call& c) {
       return fault(
           static_cast<int>(c.integer("number")), c.out<int>("out"), static_cast<int>(c.integer("size")),
           emulation::kStream);
     }},
    {"surprise",
     [](Call& c) {
       return score::cuda::surprise(
           c.tokens(), static_cast<score::Metric>(c.integer("metric")), static_cast<float>(c.number("first")),
           c.out<float>("out"), emulation::kStream);
     }},
    {"policy_state",
     [](Call& c) {
       const score::StateParts parts{
           c.integer("use_token") != 0, c.integer("use_residual") != 0, c.in<float>("features"),
           c.integer("features_width"), static_cast<float>(c.number("epsilon"))};
       return score::cuda::policy_state(
           c.tokens(), parts, c.integer("begin"), c.integer("end"), c.dtype("out_dtype"), c.out<void>("out"),
           emulation::kStream);
     }},
    {"relative_measures",
     [](Call& c) {
       const auto call = [&c](void* workspace, size_t* bytes) {
         return score::cuda::relative_measures(
             c.relative(), c.out<float>("measures"), c.out<double>("moments"), workspace, bytes, emulation::kStream);
       };
       size_t bytes = 0;
       if (cudaError_t error = call(nullptr, &bytes)) return error;
       const Scratch workspace(bytes);
       return call(workspace.memory, &bytes);
     }},
    {"relative_rows",
     [](Call& c) {
       const score::RelativeParts parts{
           c.integer("use_residual") != 0, c.integer("use_token") != 0, c.integer("use_position") != 0,
           c.in<float>("features"), c.integer("num_features")};
       return score::cuda::relative_rows(
           c.relative(), c.in<float>("measures"), c.in<double>("moments"), parts, c.integer("begin"), c.integer("end"),
           c.dtype("out_dtype"), c.out<void>("out"), emulation::kStream);
     }},
    {"select",
     [](Call& c) {
       const auto selection = static_cast<score::SelectionRule>(c.integer("selection"));
       size_t bytes = 0;
       if (cudaError_t error = score::cuda::select_workspace(c.packed(), c.integer("total_keep"), selection, &bytes)) {
         return error;
       }
       const Scratch workspace(bytes);
       return score::cuda::select(
           c.in<float>("scores"), c.packed(), c.in<int32_t>("keep"), c.integer("total_keep"), selection,
           c.number("offset"), c.out<int64_t>("index"), workspace.memory, emulation::kStream);
     }},
    {"divprune",
     [](Call& c) {
       const auto call = [&c](void* workspace, size_t* bytes) {
         return score::cuda::divprune(
             c.tokens(), c.in<int32_t>("keep"), c.integer("total_keep"), c.integer("ordered") != 0,
             c.integer("weighted") != 0 ? c.in<float>("weights") : nullptr, c.out<int64_t>("index"), workspace, bytes,
             emulation::kStream);
       };
       size_t bytes = 0;
       if (cudaError_t error = call(nullptr, &bytes)) return error;
       const Scratch workspace(bytes);
       return call(workspace.memory, &bytes);
     }},
    {"gumbel_topk",
     [](Call& c) {
       const auto call = [&c](void* workspace, size_t* bytes) {
         return score::cuda::gumbel_topk(
             c.in<float>("logits"), c.packed(), c.in<int32_t>("keep"), c.integer("total_keep"),
             c.integer("num_samples"), c.in<int64_t>("seed"), c.integer("num_seeds"), c.out<int64_t>("index"),
             c.out<int64_t>("order"), workspace, bytes, emulation::kStream);
       };
       size_t bytes = 0;
       if (cudaError_t error = call(nullptr, &bytes)) return error;
       const Scratch workspace(bytes);
       return call(workspace.memory, &bytes);
     }},
    {"plackett_luce_log_prob",
     [](Call& c) {
       const Scratch workspace(score::cuda::plackett_luce_workspace(c.packed(), c.integer("num_samples")));
       return score::cuda::plackett_luce_log_prob(
           c.in<float>("logits"), c.packed(), c.in<int32_t>("keep"), c.integer("total_keep"), c.integer("num_samples"),
           c.in<int64_t>("order"), c.out<int32_t>("rank"), c.out<float>("log_prob"), workspace.memory,
           emulation::kStream);
     }},
    {"plackett_luce_log_prob_backward",
     [](Call& c) {
       const Scratch workspace(score::cuda::plackett_luce_workspace(c.packed(), c.integer("num_samples")));
       return score::cuda::plackett_luce_log_prob_backward(
           c.in<float>("grad"), c.in<float>("logits"), c.packed(), c.in<int32_t>("keep"), c.integer("total_keep"),
           c.integer("num_samples"), c.in<int64_t>("order"), c.out<int32_t>("rank"), c.out<double>("log_shares"),
           c.out<float>("grad_logits"), workspace.memory, emulation::kStream);
     }},
    {"sample_bernoulli",
     [](Call& c) {
       const Scratch workspace(score::cuda::sample_bernoulli_workspace(c.packed(), c.integer("num_samples")));
       return score::cuda::sample_bernoulli(
           c.in<float>("logits"), c.packed(), c.integer("num_samples"), c.in<int64_t>("seed"), c.integer("num_seeds"),
           c.out<bool>("mask"), c.out<float>("log_prob"), c.out<int32_t>("count"), workspace.memory,
           emulation::kStream);
     }},
    {"gather",
     [](Call& c) {
       return score::cuda::gather(
           c.in<void>("tokens"), c.integer("num_tokens"), c.integer("row_bytes"), c.in<int64_t>("index"),
           c.integer("num_rows"), c.out<void>("out"), emulation::kStream);
     }},
    {"thumbnails",
     [](Call& c) {
       const int64_t *sizes = c.in<int64_t>("sizes"), *strides = c.in<int64_t>("strides");
       score::PixelBatch batch{
           c.in<void>("pixels"), static_cast<score::PixelType>(c.integer("type")), {}, {}, c.integer("rows"),
           c.integer("columns")};
       std::copy_n(sizes, 5, batch.sizes);
       std::copy_n(strides, 5, batch.strides);
       return score::cuda::thumbnails(batch, c.out<float>("out"), emulation::kStream);
     }},
    {"count_sketch",
     [](Call& c) {
       const score::TokenMatrix tokens{
           c.in<void>("data"), c.dtype("dtype"), c.integer("rows"), c.integer("token_width")};
       return score::cuda::count_sketch(tokens, c.integer("width"), c.out<float>("out"), emulation::kStream);
     }},
    {"kept_offsets",
     [](Call& c) {
       return score::cuda::kept_offsets(
           c.packed(), c.in<int32_t>("keep"), c.out<int32_t>("cu_kept"), emulation::kStream);
     }},
};

}  // namespace

int main(int argc, char** argv) {
  emulation::start(argc, argv);
  for (;;) {
    Call call;
    const auto launcher = kLaunchers.find(call.name);
    if (launcher == kLaunchers.end()) emulation::fail("no launcher %s", call.name.c_str());
    const cudaError_t error = launcher->second(call);
    if (cudaGetLastError() != cudaSuccess) emulation::fail("%s leaves an error for the next launch", call.name.c_str());
    call.reply(error);
  }
}
