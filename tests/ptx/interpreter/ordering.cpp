#include "ordering.h"

#include <algorithm>
#include <unordered_map>

#include "machine.h"

namespace ptx {
namespace {

uint32_t first_block = 1;                               // of this launch
std::unordered_map<uint64_t, KnowledgePtr> given_away;  // by the address of the strong write

void raise(std::map<uint16_t, uint32_t>& counts, uint16_t key, uint32_t count) {
  uint32_t& most = counts[key];
  most = std::max(most, count);
}

// What the thread knows, and what it and its warp did itself.
KnowledgePtr everything_before(Thread& thread) {
  auto all = thread.knowing.now ? std::make_shared<Knowledge>(*thread.knowing.now) : std::make_shared<Knowledge>();
  Knowledge::OfBlock& own = all->blocks[thread.block->serial];
  if (own.barriers < thread.block->barriers) own = {thread.block->barriers, {}, {}};
  raise(own.warp_syncs, thread.warp, thread.block->warp_syncs[thread.warp]);
  raise(own.releases, thread.number, ++thread.knowing.releases);
  return all;
}

}  // namespace

KnowledgePtr join(const KnowledgePtr& a, const KnowledgePtr& b) {
  if (!a || a == b) return b;
  if (!b) return a;
  auto all = std::make_shared<Knowledge>(*a);
  for (const auto& [block, known] : b->blocks) {
    Knowledge::OfBlock& into = all->blocks[block];
    if (into.barriers > known.barriers) continue;
    if (into.barriers < known.barriers) into = {known.barriers, {}, {}};
    for (const auto& [warp, count] : known.warp_syncs) raise(into.warp_syncs, warp, count);
    for (const auto& [thread, count] : known.releases) raise(into.releases, thread, count);
  }
  return all;
}

Moment moment_of(const Thread& thread, bool strong) {
  const Block& block = *thread.block;
  return {block.serial,  block.barriers, block.warp_syncs[thread.warp], thread.knowing.releases, thread.warp,
          thread.number, strong};
}

bool is_ordered(const Moment& before, const Thread& now) {
  if (before.block < first_block) return true;
  const Block& block = *now.block;
  if (before.block == block.serial) {
    if (before.barriers < block.barriers || before.thread == now.number) return true;
    if (before.warp == now.warp && before.warp_syncs < block.warp_syncs[now.warp]) return true;
  }
  if (!now.knowing.now) return false;
  const auto found = now.knowing.now->blocks.find(before.block);
  if (found == now.knowing.now->blocks.end()) return false;
  const Knowledge::OfBlock& known = found->second;
  if (before.barriers != known.barriers) return before.barriers < known.barriers;
  const auto reached = [](const std::map<uint16_t, uint32_t>& counts, uint16_t key, uint32_t count) {
    const auto at = counts.find(key);
    return at != counts.end() && count < at->second;
  };
  return reached(known.warp_syncs, before.warp, before.warp_syncs) ||
         reached(known.releases, before.thread, before.releases);
}

void fence(Thread& thread) {
  Knowing& knowing = thread.knowing;
  knowing.now = join(knowing.now, knowing.seen);
  knowing.seen = nullptr;
  knowing.fenced = everything_before(thread);
}

void strong_read(Thread& thread, uint64_t address, bool acquire) {
  const auto found = given_away.find(address);
  if (found == given_away.end()) return;
  KnowledgePtr& to = acquire ? thread.knowing.now : thread.knowing.seen;
  to = join(to, found->second);
}

void strong_write(Thread& thread, uint64_t address, bool release, bool also_reads) {
  const KnowledgePtr given = release ? everything_before(thread) : thread.knowing.fenced;
  // One that reads goes on with what others gave away there; one that does not replaces it.
  if (also_reads) {
    if (given) given_away[address] = join(given_away[address], given);
  } else {
    given_away[address] = given;
  }
}

void begin_ordering(uint32_t block) {
  first_block = block;
  given_away.clear();
}

bool is_of_this_launch(const Moment& moment) { return moment.block >= first_block; }

const Moment* History::find_unordered(const Thread& now, bool strong) const {
  const auto races = [&](const Moment& moment) {
    return moment.block != 0 && !(strong && moment.strong) && !is_ordered(moment, now);
  };
  if (races(last_)) return &last_;
  if (of_other_blocks_) {
    for (const Moment& moment : *of_other_blocks_) {
      if (races(moment)) return &moment;
    }
  }
  return nullptr;
}

void History::add(const Thread& now, bool strong) {
  Moment moment = moment_of(now, strong);
  if (last_.block < first_block) clear();
  if (last_.block != 0 && last_.block != moment.block) {
    if (!of_other_blocks_) of_other_blocks_ = std::make_unique<std::vector<Moment>>();
    auto& others = *of_other_blocks_;
    const auto own = std::find_if(others.begin(), others.end(), [&](auto& m) { return m.block == moment.block; });
    if (own == others.end()) {
      others.push_back(last_);
      last_ = moment;
      return;
    }
    std::swap(last_, *own);
  }
  const bool before = last_.block != moment.block || last_.barriers < moment.barriers ||
                      (last_.warp == moment.warp && last_.warp_syncs < moment.warp_syncs);
  if (!before) {
    if (last_.thread != moment.thread) moment.thread = Moment::kMany;
    if (last_.warp != moment.warp) moment.warp = Moment::kMany;
    moment.strong &= last_.strong;
  }
  last_ = moment;
}

void History::clear() {
  last_ = Moment();
  of_other_blocks_.reset();
}

void History::copy(const History& other) {
  last_ = other.last_;
  of_other_blocks_ = other.of_other_blocks_ ? std::make_unique<std::vector<Moment>>(*other.of_other_blocks_) : nullptr;
}

}  // namespace ptx
