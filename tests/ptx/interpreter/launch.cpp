// Runs the blocks of a launch, some at a time, their threads in turns of some instructions each.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>

#include "machine.h"

namespace ptx {

Options options;
std::mt19937_64 random_engine;
const Thread* whose_turn = nullptr;

namespace {

std::map<std::string, EntryText> texts;  // of all kernels that were loaded
std::map<std::string, Entry> entries;    // of those that were launched
uint32_t last_block = 0;                 // serial number of the block begun last
uint64_t executed = 0;                   // instructions, over all launches
uint64_t executed_before = 0;

// nvcc puts a hash of the file into the names of what is in anonymous namespaces, another one on the host's side.
std::string without_hash(const std::string& mangled) {
  std::string plain;
  static const std::string kMark = "_GLOBAL__N__";
  for (size_t at = 0; at < mangled.size();) {
    const size_t mark = mangled.find(kMark, at);
    if (mark == std::string::npos) return plain + mangled.substr(at);
    // The length that the mangling writes before the name says where it ends.
    size_t digits = mark;
    while (digits > at && std::isdigit(static_cast<unsigned char>(mangled[digits - 1]))) --digits;
    plain += mangled.substr(at, digits - at) + "anonymous";
    at = mark + std::stoul(mangled.substr(digits, mark - digits));
  }
  return plain;
}

void start(
    Block& block, const Entry& entry, const std::vector<unsigned char>& parameters, Dim grid, Dim size, uint64_t number,
    size_t shared_bytes) {
  block.entry = &entry;
  block.parameters = &parameters;
  block.serial = ++last_block;
  block.index = {
      static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
      static_cast<unsigned>(number / grid.x / grid.y)};
  const size_t threads = size.count();
  block.threads.assign(threads, Thread());
  block.registers.assign(threads * static_cast<size_t>(entry.registers), 0xDEADBEEFDEADBEEF);
  block.shared.reset(shared_bytes);
  block.barriers = 0;
  block.warp_syncs.assign((threads + 31) / 32, 0);
  block.order.resize(threads);
  std::iota(block.order.begin(), block.order.end(), uint16_t{0});
  if (options.backwards) std::reverse(block.order.begin(), block.order.end());
  for (size_t i = 0; i < threads; ++i) {
    Thread& thread = block.threads[i];
    thread.block = &block;
    thread.number = static_cast<uint16_t>(i);
    thread.warp = static_cast<uint16_t>(i / 32);
    thread.lane = static_cast<uint16_t>(i % 32);
    thread.index = {
        static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
        static_cast<unsigned>(i / size.x / size.y)};
    thread.local.assign(static_cast<size_t>(entry.local_bytes), 0xA5);
    thread.registers = &block.registers[i * static_cast<size_t>(entry.registers)];
    const uint64_t below = (uint64_t{1} << thread.lane) - 1, self = uint64_t{1} << thread.lane;
    const uint64_t above = 0xFFFFFFFF & ~(below | self);
    const uint64_t specials[kSpecials] = {thread.index.x, thread.index.y, thread.index.z, size.x,        size.y,
                                          size.z,         block.index.x,  block.index.y,  block.index.z, grid.x,
                                          grid.y,         grid.z,         thread.lane,    thread.warp,   below,
                                          below | self,   above,          above | self,   self,          0};
    std::copy(std::begin(specials), std::end(specials), thread.registers);
  }
}

void take_turn(Thread& thread, int instructions) {
  whose_turn = &thread;
  const Instruction* code = thread.block->entry->code.data();
  for (; instructions > 0 && thread.state == State::kReady; --instructions) {
    const Instruction& in = code[thread.pc++];
    ++in.runs;
    ++executed;
    if (in.guard >= 0 && (thread.registers[in.guard] != 0) == in.guard_negated) continue;
    in.run(thread, in);
  }
}

// A turn for every thread that can run. False if none could, and nothing that they wait for has come about.
bool run_round(Block& block) {
  bool progress = false;
  if (options.random) std::shuffle(block.order.begin(), block.order.end(), random_engine);
  for (const uint16_t number : block.order) {
    Thread& thread = block.threads[number];
    if (thread.state != State::kReady) continue;
    progress = true;
    const auto turn = static_cast<unsigned>(options.turn);
    take_turn(thread, static_cast<int>(options.random ? 1 + random_engine() % turn : turn));
  }
  if (executed - executed_before > options.most_instructions) fail("a launch that does not end");
  for (unsigned warp = 0; warp < block.warp_syncs.size(); ++warp) progress |= try_warp(block, warp);
  return try_barrier(block) || progress;
}

bool is_done(const Block& block) {
  return std::all_of(
      block.threads.begin(), block.threads.end(), [](const Thread& thread) { return thread.state == State::kDone; });
}

[[noreturn]] void report_deadlock(const Block& block) {
  for (const Thread& thread : block.threads) {
    if (thread.state != State::kDone) whose_turn = &thread;
  }
  fail("threads wait for each other");
}

}  // namespace

bool launch(
    const std::string& name, Dim grid, Dim size, size_t dynamic_shared, bool cooperative, void* const* arguments) {
  const Entry& entry = find_entry(name);
  const bool fits = size.count() > 0 && size.count() <= static_cast<uint64_t>(entry.max_threads) && grid.count() > 0 &&
                    grid.x <= 0x7FFFFFFF && grid.y <= 65535 && grid.z <= 65535;
  if (!fits) return false;
  std::vector<unsigned char> parameters(static_cast<size_t>(entry.parameter_bytes));
  for (size_t i = 0; i < entry.parameters.size(); ++i) {
    std::memcpy(&parameters[entry.parameters[i].offset], arguments[i], entry.parameters[i].bytes);
  }
  const size_t shared_bytes = static_cast<size_t>(entry.dynamic_offset) + dynamic_shared;
  begin_ordering(last_block + 1);
  executed_before = executed;

  const uint64_t blocks = grid.count();
  const uint64_t resident =
      cooperative ? blocks : std::min<uint64_t>(blocks, static_cast<uint64_t>(options.resident_blocks));
  uint64_t begun = 0;
  const auto begin_next = [&](Block& block) {
    const uint64_t number = options.backwards ? blocks - 1 - begun : begun;
    ++begun;
    start(block, entry, parameters, grid, size, number, shared_bytes);
  };
  std::vector<std::unique_ptr<Block>> running(resident);
  for (auto& block : running) begin_next(*(block = std::make_unique<Block>()));
  while (!running.empty()) {
    const size_t favourite = options.random ? random_engine() % running.size() : running.size();
    bool progress = false;
    for (size_t i = 0; i < running.size(); ++i) {
      for (uint64_t rounds = i == favourite ? 1 + random_engine() % 8 : 1; rounds > 0; --rounds) {
        progress |= run_round(*running[i]);
      }
      if (!is_done(*running[i])) continue;
      progress = true;
      if (begun < blocks) {
        begin_next(*running[i]);
      } else {
        std::swap(running[i--], running.back());
        running.pop_back();
      }
    }
    if (!progress) report_deadlock(*running.front());
  }
  whose_turn = nullptr;
  return true;
}

void load(const std::string& text) {
  for (auto& [name, entry] : split_module(text)) texts[without_hash(name)] = std::move(entry);
}

const Entry& find_entry(const std::string& name) {
  const std::string plain = without_hash(name);
  const auto found = entries.find(plain);
  if (found != entries.end()) return found->second;
  const auto text = texts.find(plain);
  if (text == texts.end()) fail("no kernel %s", name.c_str());
  return entries.emplace(plain, parse_entry(text->second)).first->second;
}

uint64_t executed_instructions() { return executed; }

void report_coverage(FILE* to) {
  for (const auto& [plain, entry] : entries) {
    for (size_t i = 0; i < entry.code.size(); ++i) {
      std::fprintf(
          to, "%s:%d\t%llu\t%s\n", entry.name.c_str(), entry.code[i].line,
          static_cast<unsigned long long>(entry.code[i].runs), entry.texts[i].c_str());
    }
  }
}

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "ptx: ");
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  if (whose_turn) {
    const Thread& thread = *whose_turn;
    const Block& block = *thread.block;
    const size_t at = thread.pc > 0 ? static_cast<size_t>(thread.pc - 1) : 0;
    std::fprintf(
        stderr, "\n  in %s\n  block %u,%u thread %u,%u at line %d: %s", block.entry->name.c_str(), block.index.x,
        block.index.y, thread.index.x, thread.index.y, block.entry->code[at].line, block.entry->texts[at].c_str());
  }
  std::fprintf(stderr, "\n");
  if (options.random) std::fprintf(stderr, "  PTX_SEED=%llu\n", static_cast<unsigned long long>(options.seed));
  std::fflush(stderr);
  std::_Exit(1);
}

}  // namespace ptx
