// Weights as the tiles of policy_logits.cpp read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "simd.h"

namespace score::cpu {

// Rounded up to a multiple of `unit`.
constexpr int64_t padded(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// A weight [outputs, inputs] as the tiles read it: float32, outputs in panels of `panel`, [panels][inputs][panel], with
// zeros for those that are not there.
struct Panels {
  int64_t inputs = 0, outputs = 0, panel = 1;
  std::vector<float> values;

  int64_t width() const { return padded(outputs, panel); }
  const float* at(int64_t first_output, int64_t input) const {
    return values.data() + first_output * inputs + input * panel;
  }
};

// Calls body with the elements of an array, as their own type.
template <typename Body>
void with_elements(const void* values, DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(static_cast<const float*>(values));
    case DType::kFloat16:
      return body(static_cast<const Float16*>(values));
    case DType::kBFloat16:
      return body(static_cast<const BFloat16*>(values));
  }
}

inline std::vector<float> floats(const void* values, DType dtype, int64_t size, int64_t padded_size) {
  std::vector<float> result(padded_size);
  with_elements(values, dtype, [&](const auto* elements) {
    for (int64_t i = 0; i < size; ++i) result[i] = to_float(elements[i]);
  });
  return result;
}

inline Panels panels_of(const void* weight, DType dtype, int64_t outputs, int64_t inputs, int64_t panel) {
  constexpr int64_t kInputs = 64;  // at a time: what is written stays in the cache until its lines are full
  Panels result{inputs, outputs, panel, {}};
  result.values.resize(result.width() * inputs);
  with_elements(weight, dtype, [&](const auto* elements) {
    parallel_for((inputs + kInputs - 1) / kInputs, 8, [&](int64_t first, int64_t last) {
      for (int64_t begin = first * kInputs; begin < std::min(last * kInputs, inputs); begin += kInputs) {
        const int64_t end = std::min(begin + kInputs, inputs);
        for (int64_t output = 0; output < outputs; ++output) {
          float* to = result.values.data() + output / panel * panel * inputs + output % panel;
          for (int64_t i = begin; i < end; ++i) to[i * panel] = to_float(elements[output * inputs + i]);
        }
      }
    });
  });
  return result;
}

// Of each output, the sum of its weights for inputs begin .. end.
inline std::vector<float> weight_sums(const Panels& weight, int64_t begin, int64_t end) {
  std::vector<double> sums(weight.width());
  for (int64_t first = 0; first < weight.width(); first += weight.panel) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < weight.panel; ++j) sums[first + j] += weight.at(first, i)[j];
    }
  }
  return {sums.begin(), sums.end()};
}

}  // namespace score::cpu
