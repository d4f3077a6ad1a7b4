// Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
//
// A draw depends on (seed, stream, sample, video, token within the video) and on nothing else: not on the batch's
// packing, the thread count or the device.
#pragma once

#include "score/rounding.h"

namespace score {

// One stream per op, so that two ops given the same seed draw independent numbers.
enum class Stream : uint32_t { kGumbelTopk = 0, kBernoulli = 1 };

// What a video's draws are keyed by: its own seed where there is one for each, and then not its number in the batch
// too.
struct VideoKey {
  int64_t seed;
  uint32_t video;
};

SCORE_INLINE VideoKey video_key(const int64_t* seed, int64_t num_seeds, int64_t video) {
  if (num_seeds == 1) return {seed[0], static_cast<uint32_t>(video)};
  return {seed[video], 0u};
}

SCORE_INLINE void philox_round(uint32_t counter[4], uint32_t key0, uint32_t key1) {
  const uint64_t product0 = static_cast<uint64_t>(0xD2511F53u) * counter[0];
  const uint64_t product1 = static_cast<uint64_t>(0xCD9E8D57u) * counter[2];
  const uint32_t high0 = static_cast<uint32_t>(product0 >> 32);
  const uint32_t high1 = static_cast<uint32_t>(product1 >> 32);
  counter[0] = high1 ^ counter[1] ^ key0;
  counter[1] = static_cast<uint32_t>(product1);
  counter[2] = high0 ^ counter[3] ^ key1;
  counter[3] = static_cast<uint32_t>(product0);
}

// The four random words of tokens 4 * quad .. 4 * quad + 3 of one video.
SCORE_INLINE void philox(int64_t seed, Stream stream, uint32_t sample, uint32_t video, uint32_t quad, uint32_t out[4]) {
  out[0] = quad;
  out[1] = sample;
  out[2] = video;
  out[3] = static_cast<uint32_t>(stream);
  uint32_t key0 = static_cast<uint32_t>(static_cast<uint64_t>(seed));
  uint32_t key1 = static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32);
  for (int round = 0; round < 10; ++round) {
    philox_round(out, key0, key1);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

}  // namespace score
