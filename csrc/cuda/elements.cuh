// Token elements of any dtype, one by one or 16 bytes at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "score/rounding.h"
#include "score/types.h"

namespace score::cuda {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ T from_float(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else {
    return __float2bfloat16_rn(value);
  }
}

// The widest load there is on every architecture.
constexpr int kVectorBytes = 16;

template <typename T>
constexpr int kVectorElements = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
__device__ void unpack(const uint4& vector, float (&values)[kVectorElements<T>]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    // The upper half of a float: one instruction an element, where elements of 2 bytes cost two and more registers.
    const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      values[2 * w] = bits_float(words[w] << 16);
      values[2 * w + 1] = bits_float(words[w] & 0xFFFF0000u);
    }
  } else {
    T elements[kVectorElements<T>];
    memcpy(elements, &vector, kVectorBytes);
#pragma unroll
    for (int e = 0; e < kVectorElements<T>; ++e) values[e] = to_float(elements[e]);
  }
}

// Stores elements of a multiple of 8 bytes, where `to` is aligned to as many, up to 16.
template <typename T, int kElements>
__device__ void store_vector(const T (&elements)[kElements], T* to) {
  constexpr int kBytes = kElements * static_cast<int>(sizeof(T));
  using Unit = std::conditional_t<kBytes % kVectorBytes == 0, uint4, uint2>;
  Unit units[kBytes / sizeof(Unit)];
  memcpy(units, elements, kBytes);
#pragma unroll
  for (int u = 0; u < static_cast<int>(kBytes / sizeof(Unit)); ++u) reinterpret_cast<Unit*>(to)[u] = units[u];
}

// True where every row of [.., row_bytes] starts and ends at a multiple of 16 bytes.
inline bool has_vector_rows(const void* rows, int64_t row_bytes) {
  return reinterpret_cast<uintptr_t>(rows) % kVectorBytes == 0 && row_bytes % kVectorBytes == 0;
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
