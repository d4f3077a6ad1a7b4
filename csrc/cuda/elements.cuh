// Token elements of any dtype, one by one or 16 bytes at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "score/types.h"

namespace score::cuda {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ T from_float(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else if constexpr (requires { __half2float(T()); }) {
    return __float2half_rn(value);
  } else {
    return __float2bfloat16_rn(value);
  }
}

// kCount neighbouring elements, moved by one instruction.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

constexpr int kVectorBytes = 16;

template <typename T>
constexpr int kVectorElements = kVectorBytes / sizeof(T);

inline bool is_vector_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0; }

// True where every row of [.., width] elements starts and ends at a multiple of 16 bytes.
inline bool has_vector_rows(const void* pointer, int64_t width, size_t element_bytes) {
  return is_vector_aligned(pointer) && width * static_cast<int64_t>(element_bytes) % kVectorBytes == 0;
}

// Calls body with a value of the C++ type that a DType names.
template <typename Body>
auto dispatch_dtype(DType dtype, Body body) {
  switch (dtype) {
    case DType::kFloat16:
      return body(__half());
    case DType::kBFloat16:
      return body(__nv_bfloat16());
    default:
      return body(float());
  }
}

}  // namespace score::cuda
