// The state of a launch: threads, blocks and their memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "memory.h"
#include "ordering.h"
#include "program.h"

namespace ptx {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
  uint64_t count() const { return static_cast<uint64_t>(x) * y * z; }
};

enum class State : uint8_t { kReady, kAtBarrier, kAtWarp, kDone };

// A cp.async under way. `bytes` of `size` are copied, zeros follow.
struct Copy {
  uint64_t to, from;
  int size, bytes;
};

struct Thread {
  uint64_t* registers = nullptr;
  struct Block* block = nullptr;
  int pc = 0;  // of the instruction that follows
  State state = State::kReady;
  uint16_t number = 0, warp = 0, lane = 0;
  Dim index;
  uint32_t lanes = 0;                          // that it waits for
  std::vector<Copy> copies;                    // not committed yet
  std::vector<std::vector<Copy>> copy_groups;  // committed, the oldest first
  std::vector<unsigned char> local;
  Knowing knowing;
};

struct Block {
  const Entry* entry = nullptr;
  const std::vector<unsigned char>* parameters = nullptr;
  Dim index;
  uint32_t serial = 0;  // over all launches
  std::vector<Thread> threads;
  std::vector<uint64_t> registers;
  SharedMemory shared;
  uint32_t barriers = 0;             // passed
  std::vector<uint32_t> warp_syncs;  // passed, by warp
  std::vector<uint16_t> order;       // in which threads get their turns
};

struct Options {
  bool random = false;     // threads, blocks and the lengths of their turns
  uint64_t seed = 1;       // of random_engine: messages name it
  int turn = 64;           // instructions, at most
  bool backwards = false;  // threads and blocks, where not at random
  enum Landing { kAtWait, kAtOnce, kAtRandom } copies_land = kAtWait;
  bool check_races = true;
  bool check_undefined = true;
  uint64_t most_instructions = 4'000'000'000;  // of a launch: more is called endless
  int resident_blocks = 4;                     // that run at the same time
};
extern Options options;
extern std::mt19937_64 random_engine;

// Operand `i` of the instruction.
inline uint64_t operand(const Thread& thread, const Instruction& instruction, int i) {
  const int32_t at = instruction.operands[i];
  return at >= 0 ? thread.registers[at] : thread.block->entry->constants[~at];
}
inline bool predicate(const Thread& thread, const Instruction& instruction, int i) {
  return (operand(thread, instruction, i) != 0) != ((instruction.negated >> i & 1) != 0);
}
inline void set(Thread& thread, const Instruction& instruction, int i, uint64_t value) {
  thread.registers[instruction.operands[i]] = value;
}

// The instruction that a thread waits at, or has begun.
inline const Instruction& current(const Thread& thread) { return thread.block->entry->code[thread.pc - 1]; }

// Completes what all who are needed have reached; false if nothing.
bool try_barrier(Block& block);
bool try_warp(Block& block, unsigned warp);

bool launch(
    const std::string& entry, Dim grid, Dim block, size_t dynamic_shared, bool cooperative, void* const* arguments);
void load(const std::string& text);
const Entry& find_entry(const std::string& name);
void report_coverage(FILE* to);
uint64_t executed_instructions();

// The thread whose turn it is: messages say where it is.
extern const Thread* whose_turn;
[[noreturn]] void fail(const char* format, ...);

}  // namespace ptx
