// Loads, stores, atomics, fences and asynchronous copies.
#include <algorithm>
#include <utility>

#include "handlers.h"

namespace ptx {
namespace {

uint64_t address_of(const Thread& thread, const Instruction& in, int operand_number, int address_number = 0) {
  return operand(thread, in, operand_number) + static_cast<uint64_t>(in.offsets[address_number]);
}

bool is_global(const Instruction& in, uint64_t address) {
  return in.space == Space::kGlobal || (in.space == Space::kGeneric && address < kSharedWindow);
}

uint64_t load_bits(const unsigned char* from, const Instruction& in) {
  uint64_t bits = 0;
  std::memcpy(&bits, from, in.bytes);
  return is_signed(in.type) ? static_cast<uint64_t>(sign_extend(bits, in.bytes)) : bits;
}

// Operands: the values, then the address.
void load(Thread& thread, const Instruction& in) {
  const int values = std::max<int>(in.parts, 1), bytes = values * in.bytes;
  const uint64_t address = address_of(thread, in, values);
  const unsigned char* from =
      access(thread, in.space, address, bytes, {.strong = in.strong, .read_only = in.read_only});
  if (in.strong && is_global(in, address)) strong_read(thread, address, in.acquire);
  for (int i = 0; i < values; ++i) set(thread, in, i, load_bits(from + i * in.bytes, in));
}

void load_parameter(Thread& thread, const Instruction& in) {
  const int values = std::max<int>(in.parts, 1);
  const uint64_t address = address_of(thread, in, values);
  const auto& parameters = *thread.block->parameters;
  if (address + values * in.bytes > parameters.size()) fail("read outside of the kernel's parameters");
  for (int i = 0; i < values; ++i) set(thread, in, i, load_bits(&parameters[address + i * in.bytes], in));
}

// Operands: the address, then the values.
void store(Thread& thread, const Instruction& in) {
  const int values = std::max<int>(in.parts, 1);
  const uint64_t address = address_of(thread, in, 0);
  unsigned char* to = access(thread, in.space, address, values * in.bytes, {.write = true, .strong = in.strong});
  if (in.strong && is_global(in, address)) strong_write(thread, address, in.release, false);
  for (int i = 0; i < values; ++i) {
    const uint64_t bits = operand(thread, in, 1 + i);
    std::memcpy(to + i * in.bytes, &bits, in.bytes);
  }
}

enum Update : uint8_t { kAdd, kMinimum, kMaximum, kAnd, kOr, kXor, kExchange, kCompare, kIncrement, kDecrement };

template <typename T>
T updated(uint8_t update, T before, T value, T other) {
  switch (update) {
    case kAdd:
      return static_cast<T>(before + value);
    case kMinimum:
      return std::min(before, value);
    case kMaximum:
      return std::max(before, value);
    case kExchange:
      return value;
    case kCompare:
      return before == value ? other : before;
    default:
      break;
  }
  if constexpr (std::is_integral_v<T>) {
    switch (update) {
      case kAnd:
        return before & value;
      case kOr:
        return before | value;
      case kXor:
        return before ^ value;
      case kIncrement:
        return before >= value ? T{0} : static_cast<T>(before + 1);
      default:
        return before == 0 || before > value ? value : static_cast<T>(before - 1);
    }
  }
  return before;
}

// atom: the value before, the address, the value, for cas another; red has no first.
template <typename T, bool kReturns>
void update(Thread& thread, const Instruction& in) {
  const int at = kReturns ? 1 : 0;
  const uint64_t address = address_of(thread, in, at);
  unsigned char* memory = access(thread, in.space, address, sizeof(T), {.strong = true});
  access(thread, in.space, address, sizeof(T), {.write = true, .strong = true});
  if (is_global(in, address)) {
    strong_read(thread, address, in.acquire);
    strong_write(thread, address, in.release, true);
  }
  uint64_t bits = 0;
  std::memcpy(&bits, memory, sizeof(T));
  const T before = decode<T>(bits), value = read<T>(thread, in, at + 1);
  const T after = updated<T>(in.variant, before, value, in.variant == kCompare ? read<T>(thread, in, at + 2) : T{});
  std::memcpy(memory, &after, sizeof(T));
  if (kReturns) set(thread, in, 0, encode<T>(before));
}

Space take_space(Mnemonic& name) {
  if (name.take("global")) return Space::kGlobal;
  if (name.take("shared") || name.take("shared::cta")) return Space::kShared;
  if (name.take("local")) return Space::kLocal;
  if (name.take("param")) return Space::kParam;
  return Space::kGeneric;
}

void take_scope(Mnemonic& name) {
  for (const char* scope : {"cta", "cluster", "gpu", "sys", "gl"}) name.take(scope);
}

void take_ordering(Mnemonic& name, Instruction& instruction) {
  const bool both = name.take("acq_rel"), acquire = name.take("acquire"), release = name.take("release");
  instruction.acquire = both || acquire;
  instruction.release = both || release;
  const bool relaxed = name.take("relaxed") || name.take("volatile") || name.take("mmio");
  instruction.strong = relaxed || instruction.acquire || instruction.release;
  take_scope(name);
}

Handler find_update(Mnemonic& name, Instruction& instruction, bool returns) {
  instruction.space = take_space(name);
  take_ordering(name, instruction);
  static constexpr std::pair<const char*, Update> kUpdates[] = {
      {"add", kAdd}, {"min", kMinimum},   {"max", kMaximum}, {"and", kAnd},       {"or", kOr},
      {"xor", kXor}, {"exch", kExchange}, {"cas", kCompare}, {"inc", kIncrement}, {"dec", kDecrement}};
  const auto found =
      std::find_if(std::begin(kUpdates), std::end(kUpdates), [&](auto& u) { return name.take(u.first); });
  if (found == std::end(kUpdates)) return nullptr;
  instruction.variant = found->second;
  return for_number(name.take_type(), [returns](auto t) -> Handler {
    using T = decltype(t);
    return returns ? update<T, true> : update<T, false>;
  });
}

Handler find_load_or_store(Mnemonic& name, Instruction& instruction, bool is_load) {
  instruction.space = take_space(name);
  take_ordering(name, instruction);
  instruction.read_only = name.take("nc");
  name.take("weak");
  name.take("v2");
  name.take("v4");
  for (const char* hint : {"ca", "cg", "cs", "lu", "cv", "wb", "wt"}) name.take(hint);
  instruction.type = name.take_type();
  instruction.bytes = static_cast<uint8_t>(bytes_of(instruction.type));
  if (instruction.bytes == 0) return nullptr;
  if (instruction.space == Space::kParam) return is_load ? load_parameter : nullptr;
  return is_load ? load : store;
}

void do_fence(Thread& thread, const Instruction&) { fence(thread); }

void nothing(Thread&, const Instruction&) {}

// Operands: where to, where from, size, and how much of that is copied where it is not all.
void copy(Thread& thread, const Instruction& in) {
  const int size = static_cast<int>(operand(thread, in, 2));
  const int bytes = in.count > 3 ? std::min(static_cast<int>(operand(thread, in, 3)), size) : size;
  const Copy copy{address_of(thread, in, 0, 0) & 0xFFFFFFFF, address_of(thread, in, 1, 1), size, bytes};
  const bool at_once = options.copies_land == Options::kAtOnce ||
                       (options.copies_land == Options::kAtRandom && random_engine() % 2 == 0);
  begin_copy(thread, copy);
  if (at_once) {
    finish_copy(thread, copy);
  } else {
    thread.copies.push_back(copy);
  }
}

void commit_copies(Thread& thread, const Instruction&) {
  thread.copy_groups.push_back(std::exchange(thread.copies, {}));
}

// Operand: how many of the latest groups may still be under way.
void wait_for_copies(Thread& thread, const Instruction& in) {
  const size_t left = in.count > 0 ? operand(thread, in, 0) : 0;
  if (thread.copy_groups.size() <= left) return;
  const auto end = thread.copy_groups.end() - static_cast<std::ptrdiff_t>(left);
  for (auto group = thread.copy_groups.begin(); group != end; ++group) {
    for (const Copy& copy : *group) finish_copy(thread, copy);
  }
  thread.copy_groups.erase(thread.copy_groups.begin(), end);
}

void wait_for_all_copies(Thread& thread, const Instruction& in) {
  commit_copies(thread, in);
  wait_for_copies(thread, in);
}

Handler find_copy(Mnemonic& name) {
  if (!name.take("async")) return nullptr;
  if (name.take("commit_group")) return commit_copies;
  if (name.take("wait_group")) return wait_for_copies;
  if (name.take("wait_all")) return wait_for_all_copies;
  const bool cached = name.take("ca"), uncached = name.take("cg");
  const bool to_shared = name.take("shared") || name.take("shared::cta");
  return cached + uncached == 1 && to_shared && name.take("global") ? copy : nullptr;
}

}  // namespace

Handler find_memory(Mnemonic& name, Instruction& instruction) {
  const std::string& base = name.base;
  if (base == "ld" || base == "st") return find_load_or_store(name, instruction, base == "ld");
  if (base == "atom" || base == "red") return find_update(name, instruction, base == "atom");
  if (base == "cp") return find_copy(name);
  if (base == "membar" || base == "fence") {
    for (const char* kind : {"acq_rel", "sc"}) name.take(kind);
    take_scope(name);
    return do_fence;
  }
  if (base == "prefetch") {
    name.take("L1");
    name.take("L2");
    return take_space(name) == Space::kGlobal ? nothing : nullptr;
  }
  return nullptr;
}

}  // namespace ptx
