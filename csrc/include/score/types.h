// Names shared by the bindings and the kernels of every device.
#pragma once

#include <cstdint>

namespace score {

enum class DType { kFloat32, kFloat16, kBFloat16 };
enum class PixelType { kUInt8, kFloat32, kFloat16, kBFloat16 };
enum class Metric { kCosine, kL2 };
enum class SelectionRule { kTopK, kSystematic };

// Pictures [N, C, F, H, W] of any strides, and how many rows and columns of cells they are reduced to.
struct PixelBatch {
  const void* pixels;
  PixelType type;
  int64_t sizes[5];
  int64_t strides[5];  // in elements
  int64_t rows, columns;

  int64_t num_planes() const { return sizes[0] * sizes[1]; }
  int64_t num_cells() const { return num_planes() * rows * columns; }
};

// Tokens [rows, width], row-major without gaps, whatever they are of.
struct TokenMatrix {
  const void* data;
  DType dtype;
  int64_t rows, width;
};

// Tokens [num_tokens, width], row-major without gaps, and how they fall into videos and frames.
struct TokenBatch {
  const void* tokens;
  DType dtype;
  int64_t width;                    // D
  const int32_t* cu_seqlens;        // [num_videos + 1]
  const int32_t* tokens_per_frame;  // [num_videos]
  int64_t num_videos;               // B
  int64_t num_tokens;               // L
};

// The parts of the policy's state, in the order in which they lie in a row.
struct StateParts {
  bool token;              // LayerNorm of x: width columns
  bool residual;           // LayerNorm of x - previous frame's x, 0 in the first frame: width columns
  const float* features;   // [num_tokens, features_width], copied as it is
  int64_t features_width;  // P
  float epsilon;           // added to the variance, as in torch's layer_norm
  int64_t columns(int64_t width) const { return (token ? width : 0) + (residual ? width : 0) + features_width; }
};

// The layers of the policy's network, row-major without gaps, in one dtype.
struct NetworkLayers {
  DType dtype;
  const void *w1, *b1;        // [hidden1, columns of the state], [hidden1]
  const void *w2, *b2;        // [hidden2, hidden1], [hidden2]; null where there is one hidden layer
  const void *w_out, *b_out;  // [1, hidden2 or hidden1], [1]
  int64_t hidden1, hidden2;
};

}  // namespace score
