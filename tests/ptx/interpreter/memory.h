// Global, shared and local memory, with an account of who wrote and read what.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ordering.h"
#include "program.h"

namespace ptx {

struct Copy;
struct Thread;

struct Cell {
  History writes, reads;
  bool defined = false;
};

// Of four bytes that are accessed together, as nearly all are; taken apart where somebody accesses a part of them.
struct Word {
  Cell cell;
  std::unique_ptr<std::array<Cell, 4>> bytes;
};

// A run of addresses with its words; `begin` need not be a multiple of 4.
class Account {
 public:
  Account(uint64_t begin, size_t bytes);

  uint64_t begin() const { return begin_; }
  uint64_t end() const { return end_; }
  bool contains(uint64_t address, size_t bytes) const { return address >= begin_ && address + bytes <= end_; }
  void set_defined(uint64_t address, size_t bytes, bool defined);

  // Calls `function` with each cell that makes up the bytes.
  template <typename Function>
  void visit(uint64_t address, size_t bytes, Function function);

 private:
  uint64_t begin_, end_;
  std::vector<Word> words_;
};

struct SharedMemory {
  std::vector<unsigned char> bytes;
  std::unique_ptr<Account> account;

  void reset(size_t size);  // nothing is defined
};

// Generic addresses of shared and of local memory are offsets from these.
constexpr uint64_t kSharedWindow = uint64_t{1} << 60;
constexpr uint64_t kLocalWindow = uint64_t{1} << 61;

struct Access {
  bool write = false, strong = false, read_only = false;  // read_only: by ld.global.nc
};

// Checks bounds, alignment, races and that what is read was written; returns where the bytes are.
unsigned char* access(Thread& thread, Space space, uint64_t address, int bytes, Access how);

// An asynchronous copy into shared memory: until it lands nobody knows what is there.
void begin_copy(Thread& thread, const Copy& copy);
void finish_copy(Thread& thread, const Copy& copy);

// Global memory that kernels may touch.
void add_memory(const void* begin, size_t bytes);
void remove_memory(const void* begin);
void set_defined(const void* begin, size_t bytes, bool defined);

}  // namespace ptx
