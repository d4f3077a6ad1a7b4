// Threads of a block as fibers on one thread of the CPU. A fiber runs until it waits for others; then the next one that
// can run does. Blocks run one after the other; those of a cooperative launch take turns, a block's turn ending when
// all of its threads wait or look at a counter once more.
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"

namespace emulation {

Device device;

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "emulation: block %u,%u thread %u,%u: ", blockIdx.x, blockIdx.y, threadIdx.x, threadIdx.y);
  std::vfprintf(stderr, format, arguments);
  std::fprintf(stderr, "\n");
  std::abort();
}

namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr int kMaxThreads = 1024;
// Of a block's shared memory CUDA keeps so much. Kernels that ask for more than 48 KB have no static memory beside it.
constexpr int kReservedSharedBytes = 1 << 10;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fiber {
  ucontext_t context;
  void* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  dim3 index;
  bool done = false;
  bool waiting = false;
  bool polling = false;                       // was about to look at a counter that another block may change
  std::vector<Copy> copies;                   // not committed yet
  std::deque<std::vector<Copy>> copy_groups;  // committed, the oldest first
};

// Lanes of a warp on their way to one exchange.
struct Meeting {
  unsigned arrived = 0;
  const char* what = nullptr;
  std::source_location where;
  uint64_t values[32];
  uint64_t results[32];  // of the last complete exchange: the next cannot complete before all have read these
};

struct Block {
  dim3 index;
  Fiber* fibers;
  std::unique_ptr<void, decltype(&std::free)> dynamic_shared{nullptr, &std::free};
  std::vector<char> static_shared;  // while another block of a cooperative launch has its turn
  unsigned threads;
  unsigned running;  // not done
  unsigned at_barrier = 0;
  bool barrier_is_real = false;
  std::source_location barrier_where;
  bool any_vote = false;
  uint64_t barriers = 0;                                      // passed
  std::map<std::pair<unsigned, unsigned>, Meeting> meetings;  // by warp and mask
  std::map<const void*, uint64_t> storage_used;               // at how many barriers
};

const std::function<void()>* running_kernel = nullptr;
Fiber* current = nullptr;
ucontext_t scheduler;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
Block* block = nullptr;
cudaError_t last_error = cudaSuccess;
std::map<const void*, int> dynamic_limits;  // of kernels

void fiber_main() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
  (*running_kernel)();
  current->done = true;
  for (const auto& group : current->copy_groups) {
    if (!group.empty()) fail("ends without waiting for its asynchronous copies");
  }
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack, scheduler_stack_bytes);
  setcontext(&scheduler);
}

void give_way() {
  Fiber* self = current;
  self->waiting = true;
  while (self->waiting) {
    __sanitizer_start_switch_fiber(&self->fake_stack, scheduler_stack, scheduler_stack_bytes);
    swapcontext(&self->context, &scheduler);
    __sanitizer_finish_switch_fiber(self->fake_stack, &scheduler_stack, &scheduler_stack_bytes);
  }
}

void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, kStackBytes);
  swapcontext(&scheduler, &fiber.context);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void prepare(Fiber& fiber, dim3 index) {
  if (fiber.stack == nullptr) {
    fiber.stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fiber.stack == MAP_FAILED) fail("no memory for stacks");
  }
  __asan_unpoison_memory_region(fiber.stack, kStackBytes);  // what the last thread on it left behind
  fiber.index = index;
  fiber.done = fiber.waiting = fiber.polling = false;
  fiber.fake_stack = nullptr;
  fiber.copies.clear();
  fiber.copy_groups.clear();
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
}

[[noreturn]] void report_deadlock() {
  std::fprintf(stderr, "emulation: block %u,%u: its threads wait for each other\n", blockIdx.x, blockIdx.y);
  if (block->at_barrier > 0) {
    std::fprintf(
        stderr, "  %u of %u threads (%u have ended) at the barrier of %s:%u\n", block->at_barrier, block->threads,
        block->threads - block->running, block->barrier_where.file_name(), block->barrier_where.line());
  }
  for (const auto& [key, meeting] : block->meetings) {
    if (meeting.arrived == 0) continue;
    std::fprintf(
        stderr, "  warp %u: lanes %08x of %08x at %s, %s:%u\n", key.first, meeting.arrived, key.second, meeting.what,
        meeting.where.file_name(), meeting.where.line());
  }
  std::abort();
}

// The fibers of the number-th of the blocks that run at once. They are kept, because making stacks takes long.
Fiber* fibers_of(size_t number) {
  static std::vector<std::unique_ptr<Fiber[]>> all;
  while (all.size() <= number) all.push_back(std::make_unique<Fiber[]>(kMaxThreads));
  return all[number].get();
}

Block make_block(dim3 index, size_t number, size_t shared_bytes) {
  Block made{};
  made.index = index;
  made.fibers = fibers_of(number);
  made.threads = made.running = blockDim.x * blockDim.y * blockDim.z;
  // Of exactly the size asked for, filled with what no kernel means.
  if (shared_bytes > 0) {
    made.dynamic_shared.reset(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
    memset(made.dynamic_shared.get(), 0xA5, shared_bytes);
  }
  unsigned thread = 0;
  for (unsigned z = 0; z < blockDim.z; ++z) {
    for (unsigned y = 0; y < blockDim.y; ++y) {
      for (unsigned x = 0; x < blockDim.x; ++x) prepare(made.fibers[thread++], dim3(x, y, z));
    }
  }
  return made;
}

// Lets the block's threads run until all have ended, wait, or look at a counter once more. Returns whether any came
// further than to another look.
bool run_turns(Block& state) {
  block = &state;
  blockIdx = state.index;
  bool any_progress = false;
  for (unsigned t = 0; t < state.threads; ++t) state.fibers[t].waiting &= !state.fibers[t].polling;
  for (bool progress = true; progress && state.running > 0;) {
    progress = false;
    for (unsigned turn = 0; turn < state.threads; ++turn) {
      Fiber& fiber = state.fibers[device.backwards ? state.threads - 1 - turn : turn];
      if (fiber.done || fiber.waiting) continue;
      const bool was_polling = std::exchange(fiber.polling, false);
      resume(fiber);
      state.running -= fiber.done;
      progress |= !was_polling || !fiber.polling;
    }
    any_progress |= progress;
  }
  return any_progress;
}

dim3 index_of(uint64_t number, dim3 grid) {
  return dim3(
      static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
      static_cast<unsigned>(number / grid.x / grid.y));
}

// All of the kernels' static shared memory, which the linker has put into one place (see __shared__).
extern "C" char __start_emulated_shared[], __stop_emulated_shared[];

// Between and behind variables AddressSanitizer has forbidden zones: copied by a loop that it does not look into.
__attribute__((no_sanitize("address"))) void copy_shared(volatile char* to, const volatile char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

bool is_possible(dim3 grid, dim3 block_size) {
  const uint64_t threads = static_cast<uint64_t>(block_size.x) * block_size.y * block_size.z;
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  return threads > 0 && threads <= kMaxThreads && blocks > 0 && grid.x <= 0x7FFFFFFF && grid.y <= 65535 &&
         grid.z <= 65535;
}

void prepare_launch(dim3 grid, dim3 block_size, cudaStream_t stream, const std::function<void()>& kernel) {
  if (stream != kStream) fail("a launch on another stream than the caller's");
  gridDim = grid;
  blockDim = block_size;
  running_kernel = &kernel;
}

bool is_same_place(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

}  // namespace

void launch(dim3 grid, dim3 block_size, size_t shared_bytes, cudaStream_t stream, const std::function<void()>& kernel) {
  prepare_launch(grid, block_size, stream, kernel);
  if (!is_possible(grid, block_size)) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  for (uint64_t turn = 0; turn < blocks; ++turn) {
    Block state = make_block(index_of(device.backwards ? blocks - 1 - turn : turn, grid), 0, shared_bytes);
    while (state.running > 0) {
      if (!run_turns(state)) report_deadlock();
    }
  }
  block = nullptr;
}

cudaError_t launch_cooperative(dim3 grid, dim3 block_size, cudaStream_t stream, const std::function<void()>& kernel) {
  prepare_launch(grid, block_size, stream, kernel);
  if (!is_possible(grid, block_size)) return cudaErrorInvalidConfiguration;
  const uint64_t count = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  if (count > static_cast<uint64_t>(device.multiprocessors)) return cudaErrorCooperativeLaunchTooLarge;
  const size_t bytes = static_cast<size_t>(__stop_emulated_shared - __start_emulated_shared);
  std::vector<Block> blocks;
  for (uint64_t number = 0; number < count; ++number) {
    blocks.push_back(make_block(index_of(number, grid), number, 0));
    blocks.back().static_shared.resize(bytes);
    copy_shared(blocks.back().static_shared.data(), __start_emulated_shared, bytes);
  }
  for (bool live = true; live;) {
    bool progress = live = false;
    for (uint64_t turn = 0; turn < count; ++turn) {
      Block& state = blocks[device.backwards ? count - 1 - turn : turn];
      if (state.running == 0) continue;
      copy_shared(__start_emulated_shared, state.static_shared.data(), bytes);
      progress |= run_turns(state);
      copy_shared(state.static_shared.data(), __start_emulated_shared, bytes);
      live |= state.running > 0;
    }
    if (live && !progress) report_deadlock();
  }
  block = nullptr;
  return cudaSuccess;
}

void* dynamic_shared() { return block->dynamic_shared.get(); }

void add_release(uint32_t* counter, uint32_t value) { *counter += value; }

uint32_t load_acquire(const uint32_t* counter) {
  current->polling = true;
  give_way();
  return *counter;
}

cudaError_t set_attribute(const void* kernel, cudaFuncAttribute attribute, int bytes) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (bytes > device.shared_bytes - kReservedSharedBytes) return last_error = cudaErrorInvalidValue;
  int& limit = dynamic_limits[kernel];
  if (bytes < limit) {
    fail("lowers a kernel's shared memory from %d bytes to %d: another host thread may be launching it", limit, bytes);
  }
  limit = bytes;
  return cudaSuccess;
}

void wait_for_block(bool barrier, std::source_location where) {
  if (block->at_barrier == 0) {
    block->barrier_is_real = barrier;
    block->barrier_where = where;
  } else if (!is_same_place(block->barrier_where, where)) {
    fail(
        "waits at %s:%u for threads that wait at %s:%u", where.file_name(), where.line(),
        block->barrier_where.file_name(), block->barrier_where.line());
  }
  if (++block->at_barrier < block->threads) {
    give_way();
    return;
  }
  block->at_barrier = 0;
  block->barriers += block->barrier_is_real;
  for (unsigned t = 0; t < block->threads; ++t) block->fibers[t].waiting = false;
}

bool wait_and_vote(bool vote, std::source_location where) {
  if (block->at_barrier == 0) block->any_vote = false;
  block->any_vote |= vote;
  wait_for_block(false, where);
  const bool any = block->any_vote;
  wait_for_block(true, where);
  return any;
}

const uint64_t* exchange(unsigned mask, uint64_t value, const char* what, std::source_location where) {
  const unsigned warp = thread_number() / 32, lane = thread_number() % 32;
  if (!(mask >> lane & 1)) fail("%s with a mask that lacks the calling lane", what);
  Meeting& meeting = block->meetings[{warp, mask}];
  if (meeting.arrived == 0) {
    meeting.what = what;
    meeting.where = where;
  } else if (!is_same_place(meeting.where, where)) {
    fail("%s at line %u meets %s at line %u", what, where.line(), meeting.what, meeting.where.line());
  }
  meeting.values[lane] = value;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != mask) {
    give_way();
    return meeting.results;
  }
  meeting.arrived = 0;
  memcpy(meeting.results, meeting.values, sizeof(meeting.results));
  for (unsigned other = 0; other < 32; ++other) {
    if (mask >> other & 1) block->fibers[warp * 32 + other].waiting = false;
  }
  return meeting.results;
}

void check_storage_is_free(const void* storage) {
  const auto used = block->storage_used.find(storage);
  if (used != block->storage_used.end() && used->second == block->barriers) {
    fail("a collective's storage is used again without a barrier in between");
  }
}

void mark_storage_used(const void* storage) { block->storage_used[storage] = block->barriers; }

void copy_later(void* to, const void* from, size_t bytes) { current->copies.push_back({to, from, bytes}); }

void commit_copies() { current->copy_groups.push_back(std::exchange(current->copies, {})); }

void wait_for_copies(int groups_left) {
  while (current->copy_groups.size() > static_cast<size_t>(groups_left)) {
    for (const Copy& copy : current->copy_groups.front()) memcpy(copy.to, copy.from, copy.bytes);
    current->copy_groups.pop_front();
  }
}

}  // namespace emulation

cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }
