#include "memory.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "machine.h"

namespace ptx {
namespace {

std::map<uint64_t, Account> global;  // by begin
Account* last_used = nullptr;        // of global: the next access is likely to the same

unsigned long long hex(uint64_t address) { return address; }

Account& find_global(uint64_t address, int bytes, bool write) {
  if (last_used && last_used->contains(address, bytes)) return *last_used;
  const char* what = write ? "write" : "read";
  auto found = global.upper_bound(address);
  if (found == global.begin()) fail("%s of %d bytes outside of global memory", what, bytes);
  Account& account = (--found)->second;
  if (!account.contains(address, bytes)) {
    fail(
        "%s of %d bytes outside of global memory, %lld bytes behind the begin of an array of %lld", what, bytes,
        static_cast<long long>(address - account.begin()), static_cast<long long>(account.end() - account.begin()));
  }
  last_used = &account;
  return account;
}

[[noreturn]] void report_race(const char* what, const char* before, const char* space, const Moment& moment) {
  const Block& block = *whose_turn->block;
  char threads[64];
  if (moment.thread != Moment::kMany) {
    std::snprintf(threads, sizeof(threads), "thread %u", moment.thread);
  } else if (moment.warp != Moment::kMany) {
    std::snprintf(threads, sizeof(threads), "threads of warp %u", moment.warp);
  } else {
    std::snprintf(threads, sizeof(threads), "several threads");
  }
  fail(
      "race: %s of %s memory that %s of %s %s, with nothing in between that orders the two", what, space, threads,
      moment.block == block.serial ? "this block" : "another block", before);
}

void check(Thread& thread, Cell& cell, const char* space, Access how) {
  if (!how.write && !cell.defined && options.check_undefined) fail("read of %s memory that nothing wrote", space);
  if (how.read_only && is_of_this_launch(cell.writes.last())) fail("ld.global.nc of memory written in this launch");
  if (!options.check_races) {
    cell.defined |= how.write;
    if (how.write) cell.writes.add(thread, how.strong);
    return;
  }
  if (const Moment* other = cell.writes.find_unordered(thread, how.strong)) {
    report_race(how.write ? "write" : "read", "wrote", space, *other);
  }
  if (!how.write) {
    cell.reads.add(thread, how.strong);
    return;
  }
  if (const Moment* other = cell.reads.find_unordered(thread, how.strong)) report_race("write", "read", space, *other);
  // Who is ordered after a weak write is ordered after all that was ordered before it.
  if (!how.strong) {
    cell.writes.clear();
    cell.reads.clear();
  }
  cell.writes.add(thread, how.strong);
  cell.defined = true;
}

Account& find_account(Thread& thread, Space space, uint64_t address, int bytes, bool write) {
  if (space == Space::kGlobal) return find_global(address, bytes, write);
  SharedMemory& shared = thread.block->shared;
  if (!shared.account->contains(address, bytes)) {
    fail(
        "%s of %d bytes at %lld outside of the block's %zu bytes of shared memory", write ? "write" : "read", bytes,
        static_cast<long long>(address), shared.bytes.size());
  }
  return *shared.account;
}

unsigned char* access_local(Thread& thread, uint64_t address, int bytes) {
  if (address + bytes > thread.local.size() || address > thread.local.size()) {
    fail("access of %d bytes at %lld outside of the thread's local memory", bytes, static_cast<long long>(address));
  }
  return &thread.local[address];
}

}  // namespace

Account::Account(uint64_t begin, size_t bytes)
    : begin_(begin), end_(begin + bytes), words_(bytes ? (end_ + 3) / 4 - begin_ / 4 : 0) {}

template <typename Function>
void Account::visit(uint64_t address, size_t bytes, Function function) {
  Word* word = &words_[address / 4 - begin_ / 4];
  if (address % 4 == 0 && bytes % 4 == 0) {
    for (Word* end = word + bytes / 4; word < end; ++word) {
      if (!word->bytes) {
        function(word->cell);
      } else {
        for (Cell& cell : *word->bytes) function(cell);
      }
    }
    return;
  }
  for (uint64_t at = address; at < address + bytes; ++at) {
    word = &words_[at / 4 - begin_ / 4];
    if (!word->bytes) {
      word->bytes = std::make_unique<std::array<Cell, 4>>();
      for (Cell& cell : *word->bytes) {
        cell.writes.copy(word->cell.writes);
        cell.reads.copy(word->cell.reads);
        cell.defined = word->cell.defined;
      }
    }
    function((*word->bytes)[at % 4]);
  }
}

void Account::set_defined(uint64_t address, size_t bytes, bool defined) {
  visit(address, bytes, [defined](Cell& cell) { cell.defined = defined; });
}

void SharedMemory::reset(size_t size) {
  bytes.assign(size, 0xA5);
  account = std::make_unique<Account>(0, size);
}

unsigned char* access(Thread& thread, Space space, uint64_t address, int bytes, Access how) {
  if (space == Space::kGeneric) {
    space = address >= kLocalWindow ? Space::kLocal : address >= kSharedWindow ? Space::kShared : Space::kGlobal;
    if (space == Space::kLocal) address -= kLocalWindow;
    if (space == Space::kShared) address -= kSharedWindow;
  }
  if (address % bytes != 0) fail("misaligned access of %d bytes at address ...%03llx", bytes, hex(address & 0xFFF));
  if (space == Space::kLocal) return access_local(thread, address, bytes);
  const char* name = space == Space::kShared ? "shared" : "global";
  find_account(thread, space, address, bytes, how.write).visit(address, bytes, [&](Cell& cell) {
    check(thread, cell, name, how);
  });
  return space == Space::kShared ? &thread.block->shared.bytes[address] : reinterpret_cast<unsigned char*>(address);
}

void begin_copy(Thread& thread, const Copy& copy) {
  if (copy.bytes > 0) access(thread, Space::kGlobal, copy.from, copy.size, {});
  access(thread, Space::kShared, copy.to, copy.size, {.write = true});
  thread.block->shared.account->set_defined(copy.to, copy.size, false);
}

void finish_copy(Thread& thread, const Copy& copy) {
  unsigned char* to = access(thread, Space::kShared, copy.to, copy.size, {.write = true});
  std::memset(to, 0, copy.size);
  if (copy.bytes > 0) std::memcpy(to, access(thread, Space::kGlobal, copy.from, copy.size, {}), copy.bytes);
}

void add_memory(const void* begin, size_t bytes) {
  if (bytes > 0) global.try_emplace(reinterpret_cast<uint64_t>(begin), reinterpret_cast<uint64_t>(begin), bytes);
}

void remove_memory(const void* begin) {
  global.erase(reinterpret_cast<uint64_t>(begin));
  last_used = nullptr;
}

void set_defined(const void* begin, size_t bytes, bool defined) {
  const uint64_t address = reinterpret_cast<uint64_t>(begin);
  if (bytes > 0) find_global(address, 1, true).set_defined(address, bytes, defined);
}

}  // namespace ptx
