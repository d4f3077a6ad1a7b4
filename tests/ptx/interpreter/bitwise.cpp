// Moves, logic, shifts and what else looks at bits.
#include <algorithm>
#include <bit>

#include "handlers.h"

namespace ptx {
namespace {

void move(Thread& thread, const Instruction& in) { set(thread, in, 0, zero_extend(operand(thread, in, 1), in.bytes)); }

void move_predicate(Thread& thread, const Instruction& in) { write<bool>(thread, in, predicate(thread, in, 1)); }

// {a, b} from one register: as many parts as there are operands in braces.
void take_apart(Thread& thread, const Instruction& in) {
  const uint64_t value = operand(thread, in, in.parts);
  const int bytes = in.bytes / in.parts;
  for (int i = 0; i < in.parts; ++i) set(thread, in, i, zero_extend(value >> (8 * bytes * i), bytes));
}

void put_together(Thread& thread, const Instruction& in) {
  const int bytes = in.bytes / in.parts;
  uint64_t value = 0;
  for (int i = 0; i < in.parts; ++i) value |= zero_extend(operand(thread, in, 1 + i), bytes) << (8 * bytes * i);
  set(thread, in, 0, value);
}

// variant of a move: which side has braces.
enum Braces { kNone, kInto, kFrom };

enum class Logic { kAnd, kOr, kXor };

template <Logic kLogic>
void logic(Thread& thread, const Instruction& in) {
  const bool is_predicate = in.type == Type::kPred;
  const uint64_t a = is_predicate ? predicate(thread, in, 1) : operand(thread, in, 1);
  const uint64_t b = is_predicate ? predicate(thread, in, 2) : operand(thread, in, 2);
  const uint64_t result = kLogic == Logic::kAnd ? a & b : kLogic == Logic::kOr ? a | b : a ^ b;
  set(thread, in, 0, zero_extend(result, in.bytes));
}

void invert(Thread& thread, const Instruction& in) {
  if (in.type == Type::kPred) {
    write<bool>(thread, in, !predicate(thread, in, 1));
  } else {
    set(thread, in, 0, zero_extend(~operand(thread, in, 1), in.bytes));
  }
}

void invert_if_zero(Thread& thread, const Instruction& in) {  // cnot
  write<uint64_t>(thread, in, zero_extend(operand(thread, in, 1), in.bytes) == 0);
}

// Any function of three bits: operand 4 is its table.
void logic_of_three(Thread& thread, const Instruction& in) {
  const uint64_t a = operand(thread, in, 1), b = operand(thread, in, 2), c = operand(thread, in, 3);
  const uint64_t table = operand(thread, in, 4);
  uint64_t result = 0;
  for (int row = 0; row < 8; ++row) {
    if (table >> row & 1) result |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
  }
  set(thread, in, 0, zero_extend(result, 4));
}

void shift_left(Thread& thread, const Instruction& in) {
  const uint32_t by = read<uint32_t>(thread, in, 2);
  set(thread, in, 0, by >= 8u * in.bytes ? 0 : zero_extend(operand(thread, in, 1) << by, in.bytes));
}

void shift_right(Thread& thread, const Instruction& in) {
  const uint32_t by = read<uint32_t>(thread, in, 2), bits = 8u * in.bytes;
  if (is_signed(in.type)) {
    const int64_t value = sign_extend(operand(thread, in, 1), in.bytes) >> std::min(by, bits - 1);
    set(thread, in, 0, zero_extend(static_cast<uint64_t>(value), in.bytes));
  } else {
    set(thread, in, 0, by >= bits ? 0 : zero_extend(operand(thread, in, 1), in.bytes) >> by);
  }
}

// Of operands 1 and 2 as the lower and the upper half of 64 bits.
template <bool kLeft, bool kWrap>
void funnel_shift(Thread& thread, const Instruction& in) {
  const uint64_t both = operand(thread, in, 2) << 32 | zero_extend(operand(thread, in, 1), 4);
  const uint32_t asked = read<uint32_t>(thread, in, 3), by = kWrap ? asked & 31 : std::min(asked, 32u);
  set(thread, in, 0, zero_extend(kLeft ? both << by >> 32 : both >> by, 4));
}

void count_ones(Thread& thread, const Instruction& in) {
  write<uint32_t>(thread, in, static_cast<uint32_t>(std::popcount(zero_extend(operand(thread, in, 1), in.bytes))));
}

void count_leading_zeros(Thread& thread, const Instruction& in) {
  const int zeros = std::countl_zero(zero_extend(operand(thread, in, 1), in.bytes)) - (64 - 8 * in.bytes);
  write<uint32_t>(thread, in, static_cast<uint32_t>(zeros));
}

void reverse_bits(Thread& thread, const Instruction& in) {
  const uint64_t value = operand(thread, in, 1);
  uint64_t result = 0;
  for (int i = 0; i < 8 * in.bytes; ++i) result |= (value >> i & 1) << (8 * in.bytes - 1 - i);
  set(thread, in, 0, result);
}

uint64_t low_bits(uint64_t count) { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

// Operand 4 bits of operand 1, put into operand 2 at bit operand 3.
void insert_bits(Thread& thread, const Instruction& in) {
  const uint64_t at = operand(thread, in, 3) & 255, count = operand(thread, in, 4) & 255, bits = 8u * in.bytes;
  const uint64_t field = at >= bits ? 0 : low_bits(count) << at;
  const uint64_t value = at >= bits ? 0 : operand(thread, in, 1) << at;
  set(thread, in, 0, zero_extend((operand(thread, in, 2) & ~field) | (value & field), in.bytes));
}

void extract_bits(Thread& thread, const Instruction& in) {
  const uint64_t at = operand(thread, in, 2) & 255, count = operand(thread, in, 3) & 255, bits = 8u * in.bytes;
  const uint64_t value = zero_extend(operand(thread, in, 1), in.bytes);
  uint64_t result = at >= bits ? 0 : value >> at & low_bits(count);
  if (is_signed(in.type) && count > 0 && (value >> std::min(at + count - 1, bits - 1) & 1)) {
    result |= ~low_bits(std::min(count, at >= bits ? 0 : bits - at));
  }
  set(thread, in, 0, zero_extend(result, in.bytes));
}

// Four bytes out of the eight of operands 1 and 2, each chosen by four bits of operand 3; bit 3 spreads its sign.
void permute_bytes(Thread& thread, const Instruction& in) {
  const uint64_t bytes = zero_extend(operand(thread, in, 1), 4) | operand(thread, in, 2) << 32;
  const uint64_t selector = operand(thread, in, 3);
  uint64_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const int chosen = static_cast<int>(selector >> (4 * i) & 15);
    uint8_t byte = static_cast<uint8_t>(bytes >> (8 * (chosen & 7)));
    if (chosen & 8) byte = byte & 0x80 ? 0xFF : 0;
    result |= static_cast<uint64_t>(byte) << (8 * i);
  }
  set(thread, in, 0, result);
}

Handler find_move(Mnemonic& name, Instruction& instruction) {
  const Type type = name.take_type();
  instruction.bytes = static_cast<uint8_t>(bytes_of(type));
  if (type == Type::kPred) return move_predicate;
  if (instruction.variant == kInto) return take_apart;
  return instruction.variant == kFrom ? put_together : move;
}

}  // namespace

Handler find_bitwise(Mnemonic& name, Instruction& instruction) {
  const std::string& base = name.base;
  if (base == "mov") return find_move(name, instruction);
  if (base == "prmt") return name.take("b32") ? permute_bytes : nullptr;
  if (base == "lop3") return name.take("b32") ? logic_of_three : nullptr;
  if (base == "shf") {
    const bool left = name.take("l"), right = name.take("r"), wrap = name.take("wrap"), clamp = name.take("clamp");
    if (left == right || wrap == clamp || !name.take("b32")) return nullptr;
    if (left) return wrap ? funnel_shift<true, true> : funnel_shift<true, false>;
    return wrap ? funnel_shift<false, true> : funnel_shift<false, false>;
  }
  static const std::map<std::string, Handler> kHandlers = {
      {"and", logic<Logic::kAnd>},  {"or", logic<Logic::kOr>}, {"xor", logic<Logic::kXor>}, {"not", invert},
      {"cnot", invert_if_zero},     {"shl", shift_left},       {"shr", shift_right},        {"popc", count_ones},
      {"clz", count_leading_zeros}, {"brev", reverse_bits},    {"bfi", insert_bits},        {"bfe", extract_bits}};
  const auto found = kHandlers.find(base);
  if (found == kHandlers.end()) return nullptr;
  instruction.type = name.take_type();
  instruction.bytes = static_cast<uint8_t>(bytes_of(instruction.type));
  return instruction.bytes ? found->second : nullptr;
}

}  // namespace ptx
