// Arithmetic that rounds the same way on every device.
//
// Selecting and sampling must pick the same tokens on CPU and GPU, so whatever they compute goes through these:
// plain IEEE single operations, never contracted into a fused multiply-add. On the GPU the intrinsics forbid it,
// on the CPU the library is compiled with -ffp-contract=off. Fast math would undo both without a word: flushing
// subnormals to zero it turns even __fadd_rn into another instruction.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__FAST_MATH__)
#error "score: -ffast-math changes which tokens are kept; compile without it"
#endif

#if defined(__CUDACC__)
#define SCORE_INLINE __host__ __device__ __forceinline__
#else
#define SCORE_INLINE inline __attribute__((always_inline))
#endif

namespace score {

#if defined(__CUDA_ARCH__)
// nvcc has no macro for -use_fast_math and -ftz=true, but answers this while it compiles: with them, and only then, the
// assembler meets an instruction that does not exist, and its error says why.
extern "C" __device__ int __nvvm_reflect(const char*);
__device__ __forceinline__ void refuse_fast_math() {
  if (__nvvm_reflect("__CUDA_FTZ")) asm volatile("score_cannot_be_compiled_with_fast_math_or_ftz;");
}
SCORE_INLINE float add_rn(float a, float b) { return refuse_fast_math(), __fadd_rn(a, b); }
SCORE_INLINE float sub_rn(float a, float b) { return refuse_fast_math(), __fsub_rn(a, b); }
SCORE_INLINE float mul_rn(float a, float b) { return refuse_fast_math(), __fmul_rn(a, b); }
SCORE_INLINE float div_rn(float a, float b) { return refuse_fast_math(), __fdiv_rn(a, b); }
SCORE_INLINE double add_rn(double a, double b) { return __dadd_rn(a, b); }
SCORE_INLINE double sub_rn(double a, double b) { return __dsub_rn(a, b); }
SCORE_INLINE double mul_rn(double a, double b) { return __dmul_rn(a, b); }
SCORE_INLINE double div_rn(double a, double b) { return __ddiv_rn(a, b); }
#else
SCORE_INLINE float add_rn(float a, float b) { return a + b; }
SCORE_INLINE float sub_rn(float a, float b) { return a - b; }
SCORE_INLINE float mul_rn(float a, float b) { return a * b; }
SCORE_INLINE float div_rn(float a, float b) { return a / b; }
SCORE_INLINE double add_rn(double a, double b) { return a + b; }
SCORE_INLINE double sub_rn(double a, double b) { return a - b; }
SCORE_INLINE double mul_rn(double a, double b) { return a * b; }
SCORE_INLINE double div_rn(double a, double b) { return a / b; }
#endif

SCORE_INLINE uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

SCORE_INLINE float bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace score
