// Barriers and exchanges: completed once everybody has come who takes part.
#include "warp.h"

#include <algorithm>
#include <array>

#include "handlers.h"

namespace ptx {
namespace {

using Values = std::array<uint64_t, 32>;

bool takes_part(uint32_t lanes, unsigned lane) { return lanes >> lane & 1; }

// A thread of the block, for the messages of what follows.
void blame(const Thread& thread) { whose_turn = &thread; }

void shuffle(Thread* warp, const Instruction& in, uint32_t lanes, const Values& values) {
  std::array<uint64_t, 32> results{};
  for (unsigned l = 0; l < 32; ++l) {
    if (!takes_part(lanes, l)) continue;
    blame(warp[l]);
    const int lane = static_cast<int>(l);
    const int by = static_cast<int>(operand(warp[l], in, 3) & 31);
    const int control = static_cast<int>(operand(warp[l], in, 4) & 0x1FFF);
    const int clamp = control & 31, segment = control >> 8 & 31;
    const int most = (lane & segment) | (clamp & ~segment & 31), least = lane & segment;
    int from = lane;
    bool in_range = false;
    switch (in.variant) {
      case kShuffleUp:
        from = lane - by;
        in_range = from >= most;
        break;
      case kShuffleDown:
        from = lane + by;
        in_range = from <= most;
        break;
      case kShuffleXor:
        from = lane ^ by;
        in_range = from <= most;
        break;
      default:
        from = least | (by & ~segment & 31);
        in_range = from <= most;
    }
    if (!in_range) from = lane;
    if (!takes_part(lanes, static_cast<unsigned>(from))) fail("shuffle from a lane outside of the mask");
    results[l] = zero_extend(values[from], 4);
    warp[l].registers[in.operands[1]] = in_range;
  }
  for (unsigned l = 0; l < 32; ++l) {
    if (takes_part(lanes, l)) set(warp[l], in, 0, results[l]);
  }
}

uint64_t reduce(const Instruction& in, uint32_t lanes, const Values& values) {
  bool first = true;
  uint32_t result = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if (!takes_part(lanes, l)) continue;
    const uint32_t value = static_cast<uint32_t>(values[l]);
    const bool is_less =
        in.type == Type::kS32 ? static_cast<int32_t>(value) < static_cast<int32_t>(result) : value < result;
    if (first) {
      result = value;
    } else if (in.variant == kReduceAdd) {
      result += value;
    } else if (in.variant == kReduceMin) {
      result = is_less ? value : result;
    } else if (in.variant == kReduceMax) {
      result = is_less ? result : value;
    } else if (in.variant == kReduceAnd) {
      result &= value;
    } else if (in.variant == kReduceOr) {
      result |= value;
    } else {
      result ^= value;
    }
    first = false;
  }
  return result;
}

uint32_t peers_of(uint64_t value, int bytes, uint32_t lanes, const Values& values) {
  uint32_t peers = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if (takes_part(lanes, l) && zero_extend(values[l], bytes) == zero_extend(value, bytes)) peers |= 1u << l;
  }
  return peers;
}

// d = a b + c of 16 x 8 x 16, in the lanes' fragments that PTX describes. Products are added up in double: the order in
// which the hardware adds is nobody's business.
void multiply_tiles(Thread* warp, const Instruction& in) {
  const auto element = [&in](uint64_t pair, int half) -> double {
    const uint16_t bits = static_cast<uint16_t>(pair >> (16 * half));
    if (in.type == Type::kF16) return static_cast<double>(bit_copy<_Float16>(bits));
    return bit_copy<float>(static_cast<uint32_t>(bits) << 16);
  };
  double a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, column = lane % 4 * 2;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) {
        a[group + i % 2 * 8][column + half + i / 2 * 8] = element(operand(warp[lane], in, 4 + i), half);
      }
      for (int i = 0; i < 2; ++i) b[column + half + i * 8][group] = element(operand(warp[lane], in, 8 + i), half);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float results[4];
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double sum = decode<float>(operand(warp[lane], in, 10 + i));
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      results[i] = static_cast<float>(sum);
    }
    for (int i = 0; i < 4; ++i) set(warp[lane], in, i, encode<float>(results[i]));
  }
}

void exchange(Thread* warp, const Instruction& in, uint32_t lanes) {
  Values values{};
  const bool votes = in.variant >= kVoteAll && in.variant <= kVoteBallot;
  const int from = in.variant >= kShuffleUp && in.variant <= kShuffleIndex ? 2 : 1;
  uint32_t ballot = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if (!takes_part(lanes, l)) continue;
    values[l] = votes ? predicate(warp[l], in, from) : operand(warp[l], in, from);
    if (votes && values[l]) ballot |= 1u << l;
  }
  if (from == 2) return shuffle(warp, in, lanes, values);
  const uint64_t common = in.variant == kVoteAll      ? ballot == lanes
                          : in.variant == kVoteAny    ? ballot != 0
                          : in.variant == kVoteBallot ? ballot
                                                      : reduce(in, lanes, values);
  for (unsigned l = 0; l < 32; ++l) {
    if (!takes_part(lanes, l)) continue;
    set(warp[l], in, 0, in.variant == kMatchAny ? peers_of(values[l], in.bytes, lanes, values) : common);
  }
}

// Whether all lanes of the mask have come to where this one waits. Fails where they never can.
bool all_have_come(const Block& block, const Thread& thread) {
  const unsigned begin = thread.warp * 32u;
  blame(thread);
  if (!takes_part(thread.lanes, thread.lane)) fail("a mask without the calling lane");
  for (unsigned l = 0; l < 32; ++l) {
    if (!takes_part(thread.lanes, l)) continue;
    if (begin + l >= block.threads.size()) fail("a mask with lanes that the block does not have");
    const Thread& other = block.threads[begin + l];
    if (other.state == State::kDone) fail("a mask with lane %u, which has ended", l);
    if (other.state != State::kAtWarp || other.lanes != thread.lanes) return false;
    if (other.pc != thread.pc) fail("lane %u of the mask waits at line %d", l, current(other).line);
  }
  return true;
}

// All of them know now what one of them knew.
template <typename Threads>
void share_knowledge(Threads& threads) {
  KnowledgePtr all;
  for (Thread* thread : threads) all = join(all, thread->knowing.now);
  for (Thread* thread : threads) thread->knowing.now = all;
}

}  // namespace

bool try_warp(Block& block, unsigned warp) {
  bool progress = false;
  const size_t end = std::min<size_t>(block.threads.size(), 32 * (warp + 1));
  for (size_t i = 32 * warp; i < end; ++i) {
    Thread& thread = block.threads[i];
    if (thread.state != State::kAtWarp || !all_have_come(block, thread)) continue;
    Thread* const lanes = &block.threads[32 * warp];
    const Instruction& in = current(thread);
    const uint32_t mask = thread.lanes;
    if (in.variant == kMultiplyTiles) {
      multiply_tiles(lanes, in);
    } else if (in.variant != kWarpBarrier) {
      exchange(lanes, in, mask);
    } else {
      if (mask != 0xFFFFFFFFu) fail("bar.warp.sync of a part of a warp, which the interpreter does not know");
      std::array<Thread*, 32> all;
      for (int l = 0; l < 32; ++l) all[l] = lanes + l;
      share_knowledge(all);
      ++block.warp_syncs[warp];
    }
    for (unsigned l = 0; l < 32; ++l) {
      if (takes_part(mask, l)) lanes[l].state = State::kReady;
    }
    progress = true;
  }
  return progress;
}

bool try_barrier(Block& block) {
  size_t waiting = 0, done = 0;
  for (const Thread& thread : block.threads) {
    waiting += thread.state == State::kAtBarrier;
    done += thread.state == State::kDone;
  }
  if (waiting == 0 || waiting + done < block.threads.size()) return false;
  uint32_t votes = 0;
  uint8_t variant = 0;
  std::vector<Thread*> all;
  for (Thread& thread : block.threads) {
    if (thread.state == State::kDone) continue;
    blame(thread);
    const Instruction& in = current(thread);
    if (done > 0) fail("waits at a barrier for threads that have ended");
    if (thread.lane > 0 && thread.pc != block.threads[thread.number - 1].pc) {
      fail(
          "threads of a warp wait at different barriers, another at line %d",
          current(block.threads[thread.number - 1]).line);
    }
    if (variant != 0 && variant != in.variant) fail("different kinds of barriers meet");
    variant = in.variant;
    if (variant != kBarrier) votes += predicate(thread, in, 2);
    all.push_back(&thread);
  }
  share_knowledge(all);
  for (Thread* thread : all) {
    const Instruction& in = current(*thread);
    if (variant == kBarrierCount) set(*thread, in, 0, votes);
    if (variant == kBarrierAll) set(*thread, in, 0, votes == all.size());
    if (variant == kBarrierAny) set(*thread, in, 0, votes > 0);
    thread->state = State::kReady;
  }
  ++block.barriers;
  return true;
}

}  // namespace ptx
