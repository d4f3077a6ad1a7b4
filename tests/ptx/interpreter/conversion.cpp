// cvt and cvta.
#include <limits>

#include "handlers.h"

namespace ptx {
namespace {

// Rounding to a float, or to an integer that the value has afterwards.
enum Rounding : uint8_t { kNone, kNearest, kIntegerNearest, kIntegerZero, kIntegerDown, kIntegerUp };

template <typename T>
T round_to_integer(T value, uint8_t rounding) {
  switch (rounding) {
    case kIntegerNearest:
      return std::nearbyint(value);
    case kIntegerDown:
      return std::floor(value);
    case kIntegerUp:
      return std::ceil(value);
    default:
      return std::trunc(value);
  }
}

// Out of range: the nearest that fits. NaN: 0, or the sign bit alone for 64 bits.
template <typename From, typename To>
void float_to_integer(Thread& thread, const Instruction& in) {
  const From value = round_to_integer(read<From>(thread, in, 1), in.variant);
  using Limits = std::numeric_limits<To>;
  To result;
  if (std::isnan(value)) {
    result = sizeof(To) == 8 ? static_cast<To>(uint64_t{1} << 63) : To{0};
  } else if (value <= static_cast<From>(Limits::min())) {
    result = Limits::min();
  } else if (value >= static_cast<From>(Limits::max())) {
    result = Limits::max();
  } else {
    result = static_cast<To>(value);
  }
  write<To>(thread, in, result);
}

template <typename From, typename To>
void integer_to_float(Thread& thread, const Instruction& in) {
  write<To>(thread, in, static_cast<To>(read<From>(thread, in, 1)));
}

template <typename From, typename To>
void float_to_float(Thread& thread, const Instruction& in) {
  const From value = read<From>(thread, in, 1);
  write<To>(thread, in, static_cast<To>(in.variant >= kIntegerNearest ? round_to_integer(value, in.variant) : value));
}

// bytes: of the source, whose sign counts where `type` is signed. variant: bytes of the result.
void integer_to_integer(Thread& thread, const Instruction& in) {
  const uint64_t bits = operand(thread, in, 1);
  const uint64_t wide =
      is_signed(in.type) ? static_cast<uint64_t>(sign_extend(bits, in.bytes)) : zero_extend(bits, in.bytes);
  set(thread, in, 0, zero_extend(wide, in.variant));
}

uint16_t to_half(float value) { return std::isnan(value) ? 0x7FFF : bit_copy<uint16_t>(static_cast<_Float16>(value)); }

uint16_t to_bfloat16(float value) {
  if (std::isnan(value)) return 0x7FFF;
  const uint32_t bits = bit_copy<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);  // to nearest, ties to even
}

template <uint16_t (*kNarrow)(float)>
void narrow(Thread& thread, const Instruction& in) {
  set(thread, in, 0, kNarrow(read<float>(thread, in, 1)));
}

template <uint16_t (*kNarrow)(float)>
void narrow_pair(Thread& thread, const Instruction& in) {
  const uint64_t high = kNarrow(read<float>(thread, in, 1)), low = kNarrow(read<float>(thread, in, 2));
  set(thread, in, 0, high << 16 | low);
}

void widen_half(Thread& thread, const Instruction& in) {
  write<float>(thread, in, static_cast<float>(bit_copy<_Float16>(read<uint16_t>(thread, in, 1))));
}

void widen_bfloat16(Thread& thread, const Instruction& in) {
  write<float>(thread, in, bit_copy<float>(static_cast<uint32_t>(read<uint16_t>(thread, in, 1)) << 16));
}

template <typename From>
Handler from_float(Type to, uint8_t rounding) {
  if (is_wide_float(to)) {
    return for_float(to, [](auto t) -> Handler { return float_to_float<From, decltype(t)>; });
  }
  if (rounding < kIntegerNearest) return nullptr;
  return for_integer(to, [](auto t) -> Handler { return float_to_integer<From, decltype(t)>; });
}

Handler find_cvt(Mnemonic& name, Instruction& instruction) {
  const Rounding rounding = name.take("rn")    ? kNearest
                            : name.take("rni") ? kIntegerNearest
                            : name.take("rzi") ? kIntegerZero
                            : name.take("rmi") ? kIntegerDown
                            : name.take("rpi") ? kIntegerUp
                                               : kNone;
  instruction.variant = rounding;
  const Type to = name.take_type(), from = name.take_type();
  if (to == Type::kNone || from == Type::kNone) return nullptr;
  if (from == Type::kF16) return to == Type::kF32 ? widen_half : nullptr;
  if (from == Type::kBF16) return to == Type::kF32 ? widen_bfloat16 : nullptr;
  if (bytes_of(to) <= 4 && from == Type::kF32 && rounding == kNearest) {
    if (to == Type::kF16) return narrow<to_half>;
    if (to == Type::kBF16) return narrow<to_bfloat16>;
    if (to == Type::kF16x2) return narrow_pair<to_half>;
    if (to == Type::kBF16x2) return narrow_pair<to_bfloat16>;
  }
  if (from == Type::kF32) return from_float<float>(to, rounding);
  if (from == Type::kF64) return from_float<double>(to, rounding);
  if (is_wide_float(to)) {
    if (rounding != kNearest) return nullptr;
    return for_integer(from, [to](auto t) -> Handler {
      using From = decltype(t);
      return to == Type::kF32 ? integer_to_float<From, float> : integer_to_float<From, double>;
    });
  }
  if (rounding != kNone || to >= Type::kF16) return nullptr;
  instruction.type = from;
  instruction.bytes = static_cast<uint8_t>(bytes_of(from));
  instruction.variant = static_cast<uint8_t>(bytes_of(to));
  return integer_to_integer;
}

// From an address within a space to a generic one, or back.
template <uint64_t kWindow, bool kToGeneric>
void convert_address(Thread& thread, const Instruction& in) {
  const uint64_t address = operand(thread, in, 1);
  set(thread, in, 0, kToGeneric ? address + kWindow : address - kWindow);
}

Handler find_cvta(Mnemonic& name) {
  const bool to_space = name.take("to");
  const bool shared = name.take("shared") || name.take("shared::cta"), local = name.take("local");
  const bool global = name.take("global");
  if (!name.take("u64") || shared + local + global != 1) return nullptr;
  if (shared) return to_space ? convert_address<kSharedWindow, false> : convert_address<kSharedWindow, true>;
  if (local) return to_space ? convert_address<kLocalWindow, false> : convert_address<kLocalWindow, true>;
  return convert_address<0, true>;
}

}  // namespace

Handler find_conversion(Mnemonic& name, Instruction& instruction) {
  if (name.base == "cvt") return find_cvt(name, instruction);
  return name.base == "cvta" ? find_cvta(name) : nullptr;
}

}  // namespace ptx
