// What lets plain loops run at the width of the machine they are on: function multiversioning, and tokens of any
// dtype read as float.
#pragma once

#include "score/rounding.h"
#include "score/types.h"

// Compiled once per instruction set and chosen when the library is loaded: by an ifunc, which glibc has and musl has
// not. Sanitizers start too late for that. clang 19 leaves out inline functions (of std::vector, say) that only clones
// call, which shows when the library is loaded: it compiles one version, for what -march says. So do compilers for Arm,
// where NEON is always there.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(SCORE_SANITIZE)
#define SCORE_HAS_CLONES
#define SCORE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SCORE_CLONES
#endif

namespace score::cpu {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

SCORE_INLINE float to_float(float value) { return value; }
SCORE_INLINE float to_float(BFloat16 value) { return bits_float(static_cast<uint32_t>(value.bits) << 16); }
SCORE_INLINE float to_float(Float16 value) {
  // Exponent and mantissa moved into a float's place; 2^112 then corrects the exponent's bias, subnormals included.
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7FFF) << 13;
  const uint32_t scaled = float_bits(bits_float(magnitude) * 5.192296858534828e33f);
  const uint32_t finite_or_not = magnitude >= 0x0F800000u ? (magnitude | 0x7F800000u) : scaled;
  return bits_float(finite_or_not | static_cast<uint32_t>(value.bits & 0x8000) << 16);
}

template <typename T>
SCORE_INLINE T from_float(float value);
template <>
SCORE_INLINE float from_float<float>(float value) {
  return value;
}
template <>
SCORE_INLINE BFloat16 from_float<BFloat16>(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  return {static_cast<uint16_t>(value == value ? rounded : 0x7FC0u)};
}
template <>
SCORE_INLINE Float16 from_float<Float16>(float value) {
  const uint32_t sign = (float_bits(value) >> 16) & 0x8000u;
  const uint32_t magnitude = float_bits(value) & 0x7FFFFFFFu;
  // Below 2^-14 adding 1/2 leaves the subnormal's bits at the bottom of the mantissa, rounded by the addition itself.
  const uint32_t subnormal = float_bits(bits_float(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  uint32_t bits = magnitude < 0x38800000u ? subnormal : normal;
  bits = magnitude >= 0x477FF000u ? 0x7C00u : bits;  // rounds to infinity
  bits = magnitude > 0x7F800000u ? 0x7E00u : bits;   // NaN
  return {static_cast<uint16_t>(bits | sign)};
}

}  // namespace score::cpu
