// Philox words of consecutive tokens, computed many counters at a time.
#pragma once

#include "score/philox.h"

namespace score::cpu {

constexpr int64_t kWords = 256;  // tokens whose words are computed together

// out [kWords]: the words of tokens start .. start + kWords of one video; start is a multiple of 4.
SCORE_INLINE void random_words(
    int64_t seed, Stream stream, uint32_t sample, uint32_t video, int64_t start, uint32_t* out) {
  constexpr int64_t kQuads = kWords / 4;
  uint32_t words[4][kQuads];  // a row per lane of the counter, so that the loop over counters vectorises
#pragma omp simd
  for (int64_t quad = 0; quad < kQuads; ++quad) {
    uint32_t quad_words[4];
    philox(seed, stream, sample, video, static_cast<uint32_t>(start / 4 + quad), quad_words);
    words[0][quad] = quad_words[0];
    words[1][quad] = quad_words[1];
    words[2][quad] = quad_words[2];
    words[3][quad] = quad_words[3];
  }
  for (int64_t quad = 0; quad < kQuads; ++quad) {
    for (int64_t lane = 0; lane < 4; ++lane) out[4 * quad + lane] = words[lane][quad];
  }
}

}  // namespace score::cpu
