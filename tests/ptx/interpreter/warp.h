// What threads wait for together: an instruction's `variant`.
#pragma once

#include <cstdint>

namespace ptx {

enum Exchange : uint8_t {
  kNoExchange,
  kWarpBarrier,  // of a warp; the other barriers are of the block
  kBarrier,
  kBarrierAll,
  kBarrierAny,
  kBarrierCount,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kShuffleIndex,
  kMatchAny,
  kVoteAll,
  kVoteAny,
  kVoteBallot,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
  kReduceAnd,
  kReduceOr,
  kReduceXor,
  kMultiplyTiles,
};

}  // namespace ptx
