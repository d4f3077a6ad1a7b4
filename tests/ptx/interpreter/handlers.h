// What the handlers of instructions are made of.
#pragma once

#include "machine.h"

namespace ptx {

// make(T()) for the C++ type of a PTX type, or null where it has none.
template <typename Make>
Handler for_integer(Type type, Make make) {
  switch (type) {
    case Type::kU16:
    case Type::kB16:
      return make(uint16_t());
    case Type::kU32:
    case Type::kB32:
      return make(uint32_t());
    case Type::kU64:
    case Type::kB64:
      return make(uint64_t());
    case Type::kS16:
      return make(int16_t());
    case Type::kS32:
      return make(int32_t());
    case Type::kS64:
      return make(int64_t());
    default:
      return nullptr;
  }
}

template <typename Make>
Handler for_float(Type type, Make make) {
  if (type == Type::kF32) return make(float());
  if (type == Type::kF64) return make(double());
  return nullptr;
}

template <typename Make>
Handler for_number(Type type, Make make) {
  return is_wide_float(type) ? for_float(type, make) : for_integer(type, make);
}

template <typename T>
T read(const Thread& thread, const Instruction& in, int i) {
  return decode<T>(operand(thread, in, i));
}

template <typename T>
void write(Thread& thread, const Instruction& in, T value) {
  set(thread, in, 0, encode<T>(value));
}

// The result of Function::apply of 1, 2 or 3 operands.
template <typename Function, typename T>
void unary(Thread& thread, const Instruction& in) {
  write<T>(thread, in, Function::apply(read<T>(thread, in, 1)));
}

template <typename Function, typename T>
void binary(Thread& thread, const Instruction& in) {
  write<T>(thread, in, Function::apply(read<T>(thread, in, 1), read<T>(thread, in, 2)));
}

template <typename Function, typename T>
void ternary(Thread& thread, const Instruction& in) {
  write<T>(thread, in, Function::apply(read<T>(thread, in, 1), read<T>(thread, in, 2), read<T>(thread, in, 3)));
}

}  // namespace ptx
