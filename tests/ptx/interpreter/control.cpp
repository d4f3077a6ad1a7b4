// Jumps, ends, and where threads wait for each other.
#include <cstdlib>

#include "handlers.h"
#include "warp.h"

namespace ptx {
namespace {

void jump(Thread& thread, const Instruction& in) { thread.pc = in.target; }

void jump_by_table(Thread& thread, const Instruction& in) {
  const auto& table = thread.block->entry->jump_tables[in.target];
  const uint64_t index = operand(thread, in, 0);
  if (index >= table.size()) fail("brx.idx beyond its table");
  thread.pc = table[index];
}

void end(Thread& thread, const Instruction&) {
  bool waits = !thread.copies.empty();
  for (const auto& group : thread.copy_groups) waits |= !group.empty();
  if (waits) fail("ends with asynchronous copies that nobody waited for");
  thread.state = State::kDone;
}

void trap(Thread&, const Instruction&) { fail("trap"); }

void sleep(Thread&, const Instruction&) {}

void wait_at_barrier(Thread& thread, const Instruction&) { thread.state = State::kAtBarrier; }

// lanes: the number of the operand that says which lanes take part.
template <int kLanes>
void wait_for_warp(Thread& thread, const Instruction& in) {
  thread.lanes = read<uint32_t>(thread, in, kLanes);
  thread.state = State::kAtWarp;
}

void wait_for_shuffle(Thread& thread, const Instruction& in) {
  thread.lanes = read<uint32_t>(thread, in, 5);
  thread.state = State::kAtWarp;
}

void wait_for_whole_warp(Thread& thread, const Instruction&) {
  thread.lanes = 0xFFFFFFFFu;
  thread.state = State::kAtWarp;
}

Handler find_barrier(Mnemonic& name, Instruction& instruction) {
  const bool is_warp = name.take("warp");
  name.take("cta");
  name.take("aligned");
  if (name.take("sync")) {
    instruction.variant = is_warp ? static_cast<uint8_t>(kWarpBarrier) : static_cast<uint8_t>(kBarrier);
    if (is_warp) return wait_for_warp<0>;
    return instruction.count == 1 ? wait_at_barrier : nullptr;  // of all threads of the block
  }
  if (is_warp || !name.take("red") || instruction.count != 3) return nullptr;
  const bool all = name.take("and"), any = name.take("or"), count = name.take("popc");
  if (!name.take(count ? "u32" : "pred")) return nullptr;
  instruction.variant = all ? kBarrierAll : any ? kBarrierAny : kBarrierCount;
  return wait_at_barrier;
}

Handler find_exchange(Mnemonic& name, Instruction& instruction) {
  const std::string& base = name.base;
  if (!name.take("sync")) return nullptr;
  const auto what = [&](Exchange exchange) { instruction.variant = exchange; };
  if (base == "shfl") {
    name.take("up")     ? what(kShuffleUp)
    : name.take("down") ? what(kShuffleDown)
    : name.take("bfly") ? what(kShuffleXor)
    : name.take("idx")  ? what(kShuffleIndex)
                        : what(kNoExchange);
    return instruction.variant != kNoExchange && name.take("b32") ? wait_for_shuffle : nullptr;
  }
  if (base == "match") {
    if (!name.take("any")) return nullptr;
    what(kMatchAny);
    instruction.bytes = static_cast<uint8_t>(bytes_of(name.take_type()));
    return wait_for_warp<2>;
  }
  if (base == "vote") {
    name.take("all")      ? what(kVoteAll)
    : name.take("any")    ? what(kVoteAny)
    : name.take("ballot") ? what(kVoteBallot)
                          : what(kNoExchange);
    if (instruction.variant == kNoExchange) return nullptr;
    return name.take(instruction.variant == kVoteBallot ? "b32" : "pred") ? wait_for_warp<2> : nullptr;
  }
  name.take("add")   ? what(kReduceAdd)
  : name.take("min") ? what(kReduceMin)
  : name.take("max") ? what(kReduceMax)
  : name.take("and") ? what(kReduceAnd)
  : name.take("or")  ? what(kReduceOr)
  : name.take("xor") ? what(kReduceXor)
                     : what(kNoExchange);
  instruction.type = name.take_type();
  return instruction.variant != kNoExchange && bytes_of(instruction.type) == 4 ? wait_for_warp<2> : nullptr;
}

// Of 16 x 8 x 16: d (4 floats), a (4 pairs), b (2 pairs), c (4 floats).
Handler find_mma(Mnemonic& name, Instruction& instruction) {
  for (const char* word : {"sync", "aligned", "m16n8k16", "row", "col"}) {
    if (!name.take(word)) return nullptr;
  }
  const Type d = name.take_type(), a = name.take_type(), b = name.take_type(), c = name.take_type();
  if (d != Type::kF32 || c != Type::kF32 || a != b || (a != Type::kBF16 && a != Type::kF16)) return nullptr;
  instruction.type = a;
  instruction.variant = kMultiplyTiles;
  return wait_for_whole_warp;
}

}  // namespace

Handler find_control(Mnemonic& name, Instruction& instruction) {
  const std::string& base = name.base;
  if (base == "bar" || base == "barrier") return find_barrier(name, instruction);
  name.take("uni");
  if (base == "bra") return jump;
  if (base == "brx") return name.take("idx") ? jump_by_table : nullptr;
  if (base == "ret" || base == "exit") return end;
  if (base == "trap") return trap;
  if (base == "nanosleep") return name.take("u32") ? sleep : nullptr;
  if (base == "mma") return find_mma(name, instruction);
  if (base == "shfl" || base == "match" || base == "vote" || base == "redux") return find_exchange(name, instruction);
  return nullptr;
}

}  // namespace ptx
