// Which accesses to memory are ordered, by the rules of the PTX memory model, whatever order they happened to run in.
//
// Within a block, a barrier orders all threads, and bar.warp.sync those of a warp; shuffles and votes order nothing.
// Between threads that meet at no barrier, one releases (a fence and then a strong write, or a write with .release) and
// the other acquires (a strong read of what was written and then a fence, or a read with .acquire). "Strong" are
// atomic, volatile, relaxed, release and acquire accesses. A kernel orders itself after those launched before it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace ptx {

struct Thread;

// When something was done, as far as ordering goes; of several accesses of a block since its last barrier, all of them.
struct Moment {
  static constexpr uint16_t kMany = 0xFFFF;  // threads, or warps
  uint32_t block = 0;                        // over all launches, counted from 1; 0: never
  uint32_t barriers = 0;                     // that the block had passed
  uint32_t warp_syncs = 0;                   // that the warp had passed
  uint32_t releases = 0;                     // that the thread had made
  uint16_t warp = 0, thread = 0;
  bool strong = false;  // all of them
};

// What a thread knows to have happened before: of each block, all before a barrier, and what single warps and threads
// did since then up to a bar.warp.sync or a release.
struct Knowledge {
  struct OfBlock {
    uint32_t barriers = 0;
    std::map<uint16_t, uint32_t> warp_syncs;
    std::map<uint16_t, uint32_t> releases;
  };
  std::map<uint32_t, OfBlock> blocks;
};
using KnowledgePtr = std::shared_ptr<const Knowledge>;

// What one thread knows, keeps in store and gives away.
struct Knowing {
  KnowledgePtr now;     // is ordered before what the thread does next
  KnowledgePtr seen;    // becomes so at the next fence
  KnowledgePtr fenced;  // what a strong write gives away: known at the last fence
  uint32_t releases = 0;
};

KnowledgePtr join(const KnowledgePtr& a, const KnowledgePtr& b);

Moment moment_of(const Thread& thread, bool strong);
bool is_ordered(const Moment& before, const Thread& now);

void fence(Thread& thread);
// At a strong access of global memory: reads come first where it is both.
void strong_read(Thread& thread, uint64_t address, bool acquire);
void strong_write(Thread& thread, uint64_t address, bool release, bool also_reads);

// Everything so far is ordered before what blocks with numbers of `first_block` and above do.
void begin_ordering(uint32_t first_block);
bool is_of_this_launch(const Moment& moment);

// Accesses of one kind to one word since the last that ordered them all: one moment for each block.
class History {
 public:
  bool empty() const { return last_.block == 0; }
  const Moment& last() const { return last_; }
  // One of them that is not ordered before what `now` does (and not strong, if it need not be then), or null.
  const Moment* find_unordered(const Thread& now, bool strong) const;
  void add(const Thread& now, bool strong);
  void clear();
  void copy(const History& other);

 private:
  Moment last_;
  std::unique_ptr<std::vector<Moment>> of_other_blocks_;
};

}  // namespace ptx
