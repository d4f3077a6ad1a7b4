// GELU as torch has it by default, x (1 + erf(x / sqrt 2)) / 2, in loops that the compiler vectorises.
#pragma once

#include "score/rounding.h"

namespace score::cpu {

// Error function by the quotient of polynomials that Eigen and XLA use on [-4, 4]; right to a few units in the last
// place. Beyond 3.92 the nearest float is 1.
SCORE_INLINE float fast_erf(float x) {
  const float x2 = x * x;
  float p = -2.72614225801306e-10f;
  p = p * x2 + 2.77068142495902e-08f;
  p = p * x2 + -2.10102402082508e-06f;
  p = p * x2 + -5.69250639462346e-05f;
  p = p * x2 + -7.34990630326855e-04f;
  p = p * x2 + -2.95459980854025e-03f;
  p = p * x2 + -1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * x2 + -2.13374055278905e-04f;
  q = q * x2 + -1.68282697438203e-03f;
  q = q * x2 + -7.37332916720468e-03f;
  q = q * x2 + -1.42647390514189e-02f;
  const float inside = x * p / q;
  const float outside = x > 0.0f ? 1.0f : -1.0f;
  return x > 3.92f || x < -3.92f ? outside : inside;
}

// In place.
SCORE_INLINE void gelu(float* values, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) {
    const float x = values[i];
    values[i] = 0.5f * x * (1.0f + fast_erf(x * 0.707106781f));
  }
}

}  // namespace score::cpu
